"""Evaluation on held-out sets: inside training, and as a job that compares models.

Every set is read as distinct questions; each question gets its own samples, whose seeds depend on (run seed, step,
set, question, sample) and on nothing else, so that all models of a job answer with the same random numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ampo_registry.protocols import RolloutEngine, RunContext, Tracker
from ampo_registry.specs import RolloutSpec
from ampo_registry.types import Grade, GradeRequest, Question, Rollout, RolloutRequest, SamplingOptions

from ampo_core.compare import Comparison, compare, print_table
from ampo_core.config.jobs import EvaluateDataConfig, EvaluateJob
from ampo_core.config.tree import DataConfig, EvaluationConfig, EvaluationSet, ModelConfig
from ampo_core.curves import check_runs, draw_curves, read_run
from ampo_core.data.questions import load_questions
from ampo_core.data.report import LoadReport
from ampo_core.data.seeds import derive_seed
from ampo_core.environment import Environment
from ampo_core.grading import Grader
from ampo_core.manifest import build_manifest
from ampo_core.results import MACRO_METRIC, Evaluation, SetResult
from ampo_core.runfolder import RunFolder, write_atomically
from ampo_core.tokens import PromptTokenizer, load_tokenizer

if TYPE_CHECKING:
    from ampo_core.ranks import Ranks


@dataclass(frozen=True, slots=True)
class HeldOutSet:
    """The distinct questions of a set, tokenised for one model."""

    name: str
    config: EvaluationSet
    questions: tuple[Question, ...]
    report: LoadReport


@contextmanager
def set_graders(evaluation: EvaluationConfig, grader: Grader) -> Iterator[dict[str, Grader]]:
    """A grader for each set: `grader`, or one of its own where the set names a reward; equal rewards share one."""
    with ExitStack() as stack:
        graders: dict[str, Grader] = {}
        for name, item in evaluation.sets.items():
            same = (other for other in graders if evaluation.sets[other].reward == item.reward)
            if item.reward is None:
                graders[name] = grader
            elif (twin := next(same, None)) is not None:
                graders[name] = graders[twin]
            else:
                graders[name] = stack.enter_context(Grader(item.reward))
        yield graders


def load_sets(
    evaluation: EvaluationConfig,
    data: DataConfig | EvaluateDataConfig,
    tokenizer: PromptTokenizer,
    graders: Mapping[str, Grader],
) -> list[HeldOutSet]:
    """Read every set, tokenised by `tokenizer`; ground truths are checked with the set's grader.

    Raises DataError for a missing, empty or malformed file (see load_questions).
    """
    loaded = []
    for name, item in evaluation.sets.items():
        found = load_questions(
            [item.path],
            tokenizer,
            max_prompt_tokens=data.max_prompt_tokens,
            overlong_prompts=data.overlong_prompts,
            system_prompt=data.system_prompt,
            check_truths=graders[name].check_truths,
            where=item.where,
            distinct=True,
            limit=item.limit,
        )
        loaded.append(HeldOutSet(name, item, found.questions, found.report))
    return loaded


def sampling_options(evaluation: EvaluationConfig, rollout: RolloutSpec, tokenizer: PromptTokenizer) -> SamplingOptions:
    """How held-out questions are sampled."""
    return SamplingOptions(
        temperature=evaluation.temperature,
        top_p=evaluation.top_p,
        max_response_tokens=evaluation.max_response_tokens or rollout.max_response_tokens,
        stop_token_ids=tokenizer.stop_token_ids,
    )


def evaluate_sets(
    sets: Sequence[HeldOutSet],
    engine: RolloutEngine,
    graders: Mapping[str, Grader],
    options: SamplingOptions,
    *,
    run_seed: int,
    step: int,
    ranks: Ranks,
) -> Evaluation:
    """Sample and grade every set; a collective call, in which each rank does its share and all get the whole.

    The engine is woken before and put to sleep after. Counts of timeouts and errors are the evaluation's own: they
    are taken out of the graders afterwards.
    """
    results = []
    engine.wake()
    for item in sets:
        mine = ranks.shard(item.questions)
        requests = [
            RolloutRequest(question.prompt_token_ids, _seeds(run_seed, step, item, question)) for question in mine
        ]
        groups = engine.generate(requests, options)
        grades = _grade(graders[item.name], mine, groups)
        whole = ranks.gather(list(zip(groups, grades, strict=True)), len(item.questions))
        results.append(
            SetResult(
                name=item.name,
                questions=item.questions,
                rollouts=tuple(tuple(rollouts) for rollouts, _ in whole),
                grades=tuple(tuple(verdicts) for _, verdicts in whole),
                pass_at=tuple(item.config.pass_at),
            )
        )
    engine.sleep()
    return Evaluation(tuple(results))


def _seeds(run_seed: int, step: int, item: HeldOutSet, question: Question) -> tuple[int, ...]:
    # By uid, not by position: `limit` or a reordered file leaves the other questions' samples as they were.
    return tuple(
        derive_seed("evaluation", run_seed, step, item.name, question.uid, sample)
        for sample in range(item.config.samples)
    )


def _grade(
    grader: Grader, questions: Sequence[Question], groups: Sequence[Sequence[Rollout]]
) -> list[tuple[Grade, ...]]:
    requests = [
        GradeRequest(rollout.text, question.answer, question.source)
        for question, group in zip(questions, groups, strict=True)
        for rollout in group
    ]
    grades = iter(grader.grade(requests))
    grader.take_counts()
    return [tuple(next(grades) for _ in group) for group in groups]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model of an evaluate job, with the sets in its own tokens."""

    name: str
    model: ModelConfig
    tokenizer: PromptTokenizer
    sets: list[HeldOutSet]


def run(job: EvaluateJob, environment: Environment) -> Path:
    """Evaluate every model on every set and compare them; returns the run folder.

    It gets predictions.jsonl (a line a sample), metrics.jsonl (a line a model, named MODEL/eval/...), results.json,
    and curves.png if `comparison.curves` names runs. Raises ConfigError and DataError before anything is written.
    """
    from ampo_core.ranks import join_ranks

    check_runs(job.comparison.curves)
    ranks = join_ranks(job.resources.threads)
    with ExitStack() as stack:
        grader = stack.enter_context(Grader(job.reward))
        graders = stack.enter_context(set_graders(job.evaluation, grader))
        candidates = [_candidate(name, model, job, graders, environment) for name, model in job.models.items()]
        output = _Output.open(job, environment, candidates, stack) if ranks.rank == 0 else None
        evaluations = {}
        for candidate in candidates:
            evaluations[candidate.name] = _evaluate(candidate, job, environment, graders, ranks)
            if output is not None:
                output.record(candidate.name, evaluations[candidate.name])
    if output is not None:
        output.conclude(compare(evaluations, job.comparison.baseline or candidates[0].name, job.run.seed))
    return Path(job.run.dir) / job.run.name


def _candidate(
    name: str, model: ModelConfig, job: EvaluateJob, graders: Mapping[str, Grader], environment: Environment
) -> Candidate:
    tokenizer = load_tokenizer(model, environment.trust_remote_code)
    return Candidate(name, model, tokenizer, load_sets(job.evaluation, job.data, tokenizer, graders))


def _evaluate(
    candidate: Candidate, job: EvaluateJob, environment: Environment, graders: Mapping[str, Grader], ranks: Ranks
) -> Evaluation:
    context = environment.build_context(
        model_path=candidate.model.path,
        tokenizer=candidate.tokenizer.tokenizer,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    options = sampling_options(job.evaluation, job.rollout, candidate.tokenizer)
    with closing(job.rollout.build(context)) as engine:
        return evaluate_sets(candidate.sets, engine, graders, options, run_seed=job.run.seed, step=0, ranks=ranks)


@dataclass(frozen=True, slots=True)
class _Output:
    """What an evaluate job writes, tells its observers and trackers, and prints. Rank 0 has one."""

    job: EvaluateJob
    environment: Environment
    folder: RunFolder
    context: RunContext
    trackers: list[Tracker]

    @classmethod
    def open(
        cls, job: EvaluateJob, environment: Environment, candidates: Sequence[Candidate], stack: ExitStack
    ) -> _Output:
        """Make the run folder and say what was read; trackers are closed with `stack`."""
        manifest = build_manifest(
            job="evaluate",
            seed=job.run.seed,
            plugins=environment.plugins.distributions,
            data=dict.fromkeys(item.path for item in job.evaluation.sets.values()),
            models=[model.path for model in job.models.values()],
        )
        folder = RunFolder.create(job.run, environment.yaml, manifest)
        context = RunContext(job.run.name, folder.path, "evaluate", job.run.seed, environment.config)
        built = environment.build_context(run_dir=folder.path)
        trackers = [stack.enter_context(closing(spec.build(built))) for spec in job.tracking]
        output = cls(job, environment, folder, context, trackers)
        for candidate in candidates:
            for item in candidate.sets:
                output.say(*(f"{candidate.name}, {item.name}: {line}" for line in item.report.lines()))
        environment.plugins.notify("ampo_run_started", context=context)
        return output

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
        text = json.dumps(comparison.as_json(), indent=2, ensure_ascii=False)
        write_atomically(self.folder.path / "results.json", text + "\n")
        print_table(comparison.table(), self.environment.console)
        self.say(*comparison.readings(), *comparison.unverified())
        if self.job.comparison.note:
            self.say(self.job.comparison.note.strip())
        if self.job.comparison.curves:
            runs = [read_run(name, Path(folder)) for name, folder in self.job.comparison.curves.items()]
            picture = self.folder.path / "curves.png"
            draw_curves(runs, picture)
            self.say(f"training curves: {picture}")
        self.folder.finish()
        self.environment.plugins.notify("ampo_run_finished", context=self.context)

    def say(self, *lines: str) -> None:
        """Print lines as they are, unwrapped where the output is a log."""
        for line in lines:
            self.environment.console.print(line, markup=False, highlight=False, soft_wrap=True)
