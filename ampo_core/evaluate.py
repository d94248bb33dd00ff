"""Evaluation on held-out sets: inside training, and as a job that compares models.

Every set is read as distinct questions; each question gets its own samples, whose seeds depend on (run seed, step,
set, question, sample) and on nothing else, so that all models of a job answer with the same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ampo_registry.protocols import RolloutEngine
from ampo_registry.specs import RolloutSpec
from ampo_registry.types import Grade, GradeRequest, Question, Rollout, RolloutRequest, SamplingOptions

from ampo_core.compare import compare
from ampo_core.config.jobs import EvaluateDataConfig, EvaluateJob
from ampo_core.config.tree import DataConfig, EvaluationSet, HeldOutConfig, SampledModel
from ampo_core.curves import check_runs
from ampo_core.data.questions import load_questions
from ampo_core.data.report import LoadReport
from ampo_core.data.seeds import derive_seed
from ampo_core.environment import Environment
from ampo_core.evaluate_output import EvaluationOutput
from ampo_core.grading import Grader
from ampo_core.results import Evaluation, SetResult
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
def set_graders(evaluation: HeldOutConfig, grader: Grader) -> Iterator[dict[str, Grader]]:
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
    evaluation: HeldOutConfig,
    data: DataConfig | EvaluateDataConfig,
    tokenizer: PromptTokenizer,
    graders: Mapping[str, Grader],
    ranks: Ranks,
) -> list[HeldOutSet]:
    """Read every set, tokenised by `tokenizer`; ground truths are checked with the set's grader, by all ranks together.

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
            check_truths=partial(ranks.map, graders[name].check_truths),
            where=item.where,
            distinct=True,
            limit=item.limit,
        )
        loaded.append(HeldOutSet(name, item, found.questions, found.report))
    return loaded


def sampling_options(evaluation: HeldOutConfig, rollout: RolloutSpec, tokenizer: PromptTokenizer) -> SamplingOptions:
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
    done: Callable[[SetResult], None] | None = None,
) -> Evaluation:
    """Sample and grade every set; a collective call, in which each rank does its share and all get the whole.

    The engine is woken before and put to sleep after. Counts of timeouts and errors are the evaluation's own: they
    are taken out of the graders afterwards. `done` is told each set as soon as it is graded.
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
        if done is not None:
            done(results[-1])
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
    model: SampledModel
    tokenizer: PromptTokenizer
    sets: list[HeldOutSet]


def what_was_read(candidates: Sequence[Candidate]) -> list[str]:
    """A line for each set, for a person; models that read a set differently are named."""
    readers: dict[str, list[str]] = {}
    for candidate in candidates:
        for item in candidate.sets:
            for line in item.report.lines():
                readers.setdefault(f"{item.name}: {line}", []).append(candidate.name)
    return [line if len(names) == len(candidates) else f"{', '.join(names)}, {line}" for line, names in readers.items()]


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
        candidates = [_candidate(name, model, job, graders, environment, ranks) for name, model in job.models.items()]
        output = EvaluationOutput.open(job, environment, stack) if ranks.rank == 0 else None
        if output is not None:
            output.say(*what_was_read(candidates))
        evaluations = {}
        for candidate in candidates:
            done = None if output is None else output.progress_of(candidate.name)
            evaluations[candidate.name] = _evaluate(candidate, job, environment, graders, ranks, done)
            if output is not None:
                output.record(candidate.name, evaluations[candidate.name])
    if output is not None:
        output.conclude(compare(evaluations, job.comparison.baseline or candidates[0].name, job.run.seed))
    return Path(job.run.dir) / job.run.name


def _candidate(
    name: str,
    model: SampledModel,
    job: EvaluateJob,
    graders: Mapping[str, Grader],
    environment: Environment,
    ranks: Ranks,
) -> Candidate:
    tokenizer = load_tokenizer(model, environment.trust_remote_code)
    return Candidate(name, model, tokenizer, load_sets(job.evaluation, job.data, tokenizer, graders, ranks))


def _evaluate(
    candidate: Candidate,
    job: EvaluateJob,
    environment: Environment,
    graders: Mapping[str, Grader],
    ranks: Ranks,
    done: Callable[[SetResult], None] | None,
) -> Evaluation:
    context = environment.build_context(
        model_path=candidate.model.path,
        dtype=candidate.model.dtype,
        tokenizer=candidate.tokenizer.tokenizer,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    options = sampling_options(job.evaluation, job.rollout, candidate.tokenizer)
    with closing(job.rollout.build(context)) as engine:
        return evaluate_sets(
            candidate.sets, engine, graders, options, run_seed=job.run.seed, step=0, ranks=ranks, done=done
        )
