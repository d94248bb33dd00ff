"""Evaluation on held-out sets: inside training, and as a job that compares models.

Every set is read as distinct questions; each question gets its own samples, whose seeds depend on (run seed, step,
set, question, sample) and on nothing else, so that all models of a job answer with the same random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ampo_registry.protocols import RolloutEngine
from ampo_registry.specs import RolloutSpec
from ampo_registry.types import Grade, GradeRequest, Question, Rollout, RolloutRequest, SamplingOptions

from ampo_core.config.jobs import EvaluateDataConfig
from ampo_core.config.tree import DataConfig, EvaluationConfig, EvaluationSet
from ampo_core.data.questions import load_questions
from ampo_core.data.report import LoadReport
from ampo_core.data.seeds import derive_seed
from ampo_core.grading import Grader
from ampo_core.results import Evaluation, SetResult
from ampo_core.tokens import PromptTokenizer

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
            check_truth=graders[name].check_truth,
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

    Counts of timeouts and errors are the evaluation's own: they are taken out of the graders afterwards.
    """
    results = []
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
