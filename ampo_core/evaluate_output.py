"""What an evaluate job leaves behind and says: its run folder, trackers, observers, progress and the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from ampo_registry.protocols import RunContext, Tracker

from ampo_core.compare import Comparison, print_table
from ampo_core.config.jobs import EvaluateJob
from ampo_core.curves import draw_curves, read_run
from ampo_core.environment import Environment
from ampo_core.files import write_json
from ampo_core.folder_lock import held
from ampo_core.manifest import build_manifest
from ampo_core.progress import Progress
from ampo_core.report.build import refresh_report
from ampo_core.results import MACRO_METRIC, Evaluation, SetResult
from ampo_core.resume import start_over
from ampo_core.runfolder import RunFolder
from ampo_core.statistics import average


@dataclass(frozen=True, slots=True)
class EvaluationOutput:
    """Rank 0 of an evaluate job has one."""

    job: EvaluateJob
    environment: Environment
    folder: RunFolder
    context: RunContext
    trackers: list[Tracker]
    progress: Progress

    @classmethod
    def open(cls, job: EvaluateJob, environment: Environment, stack: ExitStack) -> EvaluationOutput:
        """Make the run folder and tell observers; trackers and the progress bar are closed with `stack`."""
        manifest = build_manifest(
            job="evaluate",
            seed=job.run.seed,
            plugins=environment.plugins.distributions,
            data=dict.fromkeys(item.path for item in job.evaluation.sets.values()),
            models=[model.path for model in job.models.values()],
        )
        start_over(Path(job.run.dir) / job.run.name, environment)
        folder = RunFolder.create(job.run, environment.yaml, manifest)
        stack.enter_context(held(folder.path))
        context = RunContext(job.run.name, folder.path, "evaluate", job.run.seed, environment.config)
        built = environment.build_context(run_dir=folder.path)
        trackers = [stack.enter_context(closing(spec.build(built))) for spec in job.tracking]
        progress = Progress(environment.console, "evaluate", len(job.models) * len(job.evaluation.sets))
        environment.plugins.notify("ampo_run_started", context=context)
        return cls(job, environment, folder, context, trackers, stack.enter_context(progress))

    def progress_of(self, model: str) -> Callable[[SetResult], None]:
        """What is told each finished set of `model`: it says the set's avg@K and moves the bar."""
        names = list(self.job.evaluation.sets)
        before = list(self.job.models).index(model) * len(names)

        def done(result: SetResult) -> None:
            self.say(f"{model}, {result.name}: avg@{result.samples} {average(result.averages()):.3f}")
            self.progress.step(before + names.index(result.name) + 1, {})

        return done

    def record(self, model: str, evaluation: Evaluation) -> None:
        """Write a model's samples and numbers."""
        metrics = {f"{model}/{name}": value for name, value in evaluation.metrics().items()}
        self.folder.log_metrics(0, metrics)
        for tracker in self.trackers:
            tracker.log(metrics, 0)
        with (self.folder.path / "predictions.jsonl").open("a", encoding="utf-8") as file:
            for prediction in evaluation.predictions():
                file.write(json.dumps({"model": model, **prediction}, ensure_ascii=False) + "\n")
        self.say(f"{model}: {MACRO_METRIC} {evaluation.macro:.3f}")

    def conclude(self, comparison: Comparison) -> None:
        """Write results.json, draw the curves, and print the table with what it says."""
        write_json(self.folder.path / "results.json", comparison.as_json())
        print_table(comparison.table(), self.environment.console)
        self.say(*comparison.readings(), *comparison.unverified())
        if self.job.comparison.curves:
            runs = [read_run(name, Path(folder)) for name, folder in self.job.comparison.curves.items()]
            picture = self.folder.path / "curves.png"
            draw_curves(runs, picture)
            self.say(f"training curves: {picture}")
        if self.job.comparison.note:
            self.environment.console.print(f"\n{self.job.comparison.note.strip()}", markup=False, highlight=False)
        self.folder.finish()
        refresh_report(self.folder.path, self.say)
        self.environment.plugins.notify("ampo_run_finished", context=self.context)

    def say(self, *lines: str) -> None:
        """Print lines as they are, unwrapped where the output is a log."""
        for line in lines:
            self.environment.console.print(line, markup=False, highlight=False, soft_wrap=True)
