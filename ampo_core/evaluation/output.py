"""What an evaluate job leaves behind and says: its run folder, trackers, observers, progress and the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from ampo_registry.errors import ConfigError
from ampo_registry.types import Question

from ampo_core.config.jobs import EvaluateJob
from ampo_core.config.metric_names import MACRO
from ampo_core.evaluation.compare import compare, unverified
from ampo_core.evaluation.predictions import FILE, Pair, keep_only, write
from ampo_core.evaluation.results import Evaluation, SetResult
from ampo_core.evaluation.resume import EvaluationStart, kept_results
from ampo_core.evaluation.statistics import average
from ampo_core.evaluation.table import markdown, screen_readings, screen_table
from ampo_core.report.build import refresh_report
from ampo_core.report.curves import read_run
from ampo_core.report.evaluation import pass_figures
from ampo_core.report.figures import Figure, Line
from ampo_core.report.lineage import run_of_policy
from ampo_core.report.marks import patches
from ampo_core.report.output import Output
from ampo_core.report.pictures import draw, training_figures
from ampo_core.report.scores import RESULTS, Scores
from ampo_core.report.spent import Spent, policy_spent
from ampo_core.run.environment import Environment
from ampo_core.run.files import write_atomically, write_json
from ampo_core.run.progress import say


@dataclass(frozen=True, slots=True)
class EvaluationOutput:
    """Rank 0 of an evaluate job has one. `results` are the pairs that are done, without their texts; `paths` the
    folders of the models, as far as they are known; `names` the models in order."""

    job: EvaluateJob
    output: Output
    names: Sequence[str]
    paths: Mapping[str, str]
    results: dict[Pair, SetResult]

    @classmethod
    def open(
        cls,
        job: EvaluateJob,
        environment: Environment,
        start: EvaluationStart,
        stack: ExitStack,
        *,
        questions: Mapping[Pair, Sequence[Question]],
        paths: Mapping[str, str],
    ) -> EvaluationOutput:
        """Make the run folder, or put it in order for a job that goes on, and tell observers.

        `questions` are those of every pair, model by model. `stack` closes what is opened.
        """
        path, notes = start.beginning.path, start.beginning.notes
        output = stack.enter_context(closing(Output.open(job, environment, start.beginning, steps=len(questions))))
        wanted = {pair: asked for pair, asked in questions.items() if pair in start.keeps}
        predictions, kept = kept_results(path, job, wanted)
        if predictions is not None:
            keep_only(predictions, kept)
        output.started()
        opened = cls(job, output, list(dict.fromkeys(model for model, _ in questions)), paths, kept)
        opened.say(*notes)
        if start.beginning.resume_step is not None:
            opened.say(f"{path}: goes on with {len(kept)} of {len(questions)} pairs of model and set")
        return opened

    def done(self, model: str, read: Callable[[Question], str | None], result: SetResult) -> None:
        """Write the samples of a set down with what the model `read`, say its avg@K and move the bar."""
        write(self.output.folder.path / FILE, model, result, read)
        self.results[model, result.name] = result.without_texts()
        self.say(f"{model}, {result.name}: avg@{result.samples} {average(result.averages()):.3f}")
        self.output.progress.step(len(self.results), {})

    def complete(self, model: str) -> None:
        """Write the numbers of a model, all of whose sets are done."""
        evaluation = self._evaluation(model)
        self.output.log(0, {f"{model}/{name}": value for name, value in evaluation.metrics().items()})
        self.say(f"{model}: {MACRO} {evaluation.macro:.3f}")

    def conclude(self) -> None:
        """Write results.json and results.md, draw the curves, and print the table with what it says."""
        evaluations = {model: self._evaluation(model) for model in self.names}
        scores = compare(evaluations, self.job.comparison.baseline or self.names[0], self.job.run.seed)
        budgets = {model: spent for model in self.names if (spent := self._spent(model)) is not None}
        lines = {model: spent.lines() for model, spent in budgets.items()}
        scores = replace(scores, budgets={model: spent.as_json() for model, spent in budgets.items()})
        scores = replace(scores, changed={model: found for model in self.names if (found := self._changes(model))})
        folder, environment = self.output.folder, self.output.environment
        write_json(folder.path / RESULTS, scores.as_json())
        write_atomically(folder.path / "results.md", markdown(scores, lines, self.job.comparison.note))
        screen_table(scores).show(environment.console)
        self.say(*screen_readings(scores), *unverified(scores))
        self.say(*(f"{model}: {line}" for model, found in lines.items() for line in found))
        self._draw(scores)
        if self.job.comparison.note:
            self.say(f"\n{self.job.comparison.note.strip()}")
        folder.finish()
        refresh_report(folder.path, self.say)
        self.output.concluded()

    def say(self, *lines: str) -> None:
        """Print lines as they are, unwrapped where the output is a log."""
        say(self.output.environment.console, *lines)

    def _evaluation(self, model: str) -> Evaluation:
        evaluation = self.job.evaluation
        groups = {name: tuple(members) for name, members in evaluation.groups.items()}
        return Evaluation(tuple(self.results[model, name] for name in evaluation.sets), groups)

    def _spent(self, model: str) -> Spent | None:
        """What the training of `model` took, with the runs that it started from; None for one that no run made."""
        if model not in self.paths:
            return None
        try:
            return policy_spent(Path(self.paths[model]))
        except ConfigError as error:
            self.say(f"{model}: what its training took is not known: {error}")
            return None

    def _changes(self, model: str) -> list[str]:
        """The changes that the run of `model` went on with, in words."""
        origin = run_of_policy(Path(self.paths[model])) if model in self.paths else None
        try:
            return [] if origin is None else patches(*origin)
        except ConfigError as error:
            return [f"what its run went on with cannot be read: {error}"]

    def _draw(self, scores: Scores) -> None:
        named = self.job.comparison.curves.items()
        lines = [Line(name, [read_run(name, Path(folder))], order) for order, (name, folder) in enumerate(named)]
        if lines:
            self._picture("curves.png", "training curves", training_figures(lines))
        passes = [row for row in scores.rows if len(row.pass_at) > 1]
        if passes:
            self._picture("pass_at_k.png", "pass@k", pass_figures(replace(scores, rows=passes)))

    def _picture(self, file: str, title: str, figures: Sequence[Figure]) -> None:
        draw(figures, self.output.folder.path / file)
        self.say(f"{title}: {self.output.folder.path / file}")
