"""Evaluation on held-out sets, inside training and in a job of its own.

Every set is read as distinct questions; each question gets its own samples, whose seeds depend on (run seed, step,
set, question, sample) and on nothing else, so that all models of a job answer with the same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ampo_registry.protocols import RolloutEngine
from ampo_registry.specs import RolloutSpec
from ampo_registry.types import FinishReason, Grade, GradeRequest, Question, Rollout, RolloutRequest, SamplingOptions

from ampo_core.config.data_files import DataConfig
from ampo_core.config.evaluate_job import EvaluateDataConfig
from ampo_core.config.held_out import EvaluationSet, HeldOutConfig
from ampo_core.config.nodes import dotted
from ampo_core.config.positions import require_room
from ampo_core.data.layouts import RowReader
from ampo_core.data.questions import Watch, load_questions
from ampo_core.data.report import LoadReport
from ampo_core.data.seeds import derive_seed
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.evaluation.results import Answer, Evaluation, SetResult
from ampo_core.grading.grader import Grader

if TYPE_CHECKING:
    from ampo_core.distributed.ranks import Ranks

SAMPLES_AT_ONCE = 16_384
"""Responses that are asked for in one call: 256 samples of a benchmark with their log-probs would fill the memory."""


@dataclass(frozen=True, slots=True)
class HeldOutSet:
    """The distinct questions of a set, tokenised for one model."""

    name: str
    config: EvaluationSet
    questions: tuple[Question, ...]
    report: LoadReport

    @property
    def place(self) -> str:
        """The key of the set."""
        return f"evaluation.sets.{self.name}"


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
                graders[name] = stack.enter_context(Grader(item.reward, grader.say))
        yield graders


def load_sets(
    evaluation: HeldOutConfig,
    data: DataConfig | EvaluateDataConfig,
    tokenizer: PromptTokenizer,
    graders: Mapping[str, Grader],
    ranks: Ranks,
    watch: Watch | None = None,
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
            reader=RowReader.of(item.read_as(data)),
            where=item.where,
            distinct=True,
            limit=item.limit,
            watch=watch,
        )
        loaded.append(HeldOutSet(name, item, found.questions, found.report))
    return loaded


def require_room_for(
    evaluation: HeldOutConfig, rollout: RolloutSpec, sets: Sequence[HeldOutSet], positions: int | None
) -> None:
    """Raise ConfigError if a model of `positions` has no room for the longest prompt of `sets` and a response."""
    response, key = evaluation.longest_response(rollout)
    longest = max(len(question.prompt_token_ids) for item in sets for question in item.questions)
    require_room(positions, longest, response, dotted(key))


def sampling_options(evaluation: HeldOutConfig, rollout: RolloutSpec, tokenizer: PromptTokenizer) -> SamplingOptions:
    """How held-out questions are sampled."""
    return SamplingOptions(
        temperature=evaluation.temperature,
        top_p=evaluation.top_p,
        max_response_tokens=evaluation.longest_response(rollout)[0],
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
    groups: Mapping[str, Sequence[str]] | None = None,
    done: Callable[[SetResult], None] | None = None,
) -> Evaluation:
    """Sample and grade every set; a collective call, in which each rank does its share and all get the whole.

    The engine is woken before and put to sleep after. Timeouts and errors are counted for each set on its own, and
    not among those of the graders. `done` is told each set with all texts as soon as it is graded; what is returned
    has none. `groups` are those of the evaluation.
    """
    results = []
    engine.wake()
    for item in sets:
        grader = graders[item.name].beside()
        answers: list[tuple[Answer, ...]] = []
        for part in _parts(item):
            mine = ranks.shard(part)
            requests = [
                RolloutRequest(question.prompt_token_ids, _seeds(run_seed, step, item, question)) for question in mine
            ]
            answered = _graded(grader, mine, engine.generate(requests, options), greedy=options.temperature == 0.0)
            answers += ranks.gather(answered, len(part))
        result = SetResult(item.name, item.questions, tuple(answers), item.config.tries())
        if done is not None:
            done(result)
        results.append(result.without_texts())
    engine.sleep()
    return Evaluation(tuple(results), {name: tuple(members) for name, members in (groups or {}).items()})


def grade_responses(
    grader: Grader, questions: Sequence[Question], responses: Sequence[Sequence[tuple[str, FinishReason]]]
) -> list[list[Grade]]:
    """The grades of `responses` [questions][samples], texts with what ended them."""
    requests = [
        GradeRequest.of(question, text, finish_reason)
        for question, group in zip(questions, responses, strict=True)
        for text, finish_reason in group
    ]
    grades = iter(grader.grade(requests))
    return [[next(grades) for _ in group] for group in responses]


def _parts(item: HeldOutSet) -> Iterator[tuple[Question, ...]]:
    # The same parts on every rank: sampling may be a collective call of ranks that share an engine.
    size = max(1, SAMPLES_AT_ONCE // item.config.samples)
    for start in range(0, len(item.questions), size):
        yield item.questions[start : start + size]


def _seeds(run_seed: int, step: int, item: HeldOutSet, question: Question) -> tuple[int, ...]:
    # By uid, not by position: `limit` or a reordered file leaves the other questions' samples as they were.
    return tuple(
        derive_seed("evaluation", run_seed, step, item.name, question.uid, sample)
        for sample in range(item.config.samples)
    )


def _graded(
    grader: Grader, questions: Sequence[Question], groups: Sequence[Sequence[Rollout]], *, greedy: bool
) -> list[tuple[Answer, ...]]:
    responses = [[(rollout.text, rollout.finish_reason) for rollout in group] for group in groups]
    grades = grade_responses(grader, questions, responses)
    return [
        tuple(Answer.of(rollout, grade, greedy=greedy) for rollout, grade in zip(group, found, strict=True))
        for group, found in zip(groups, grades, strict=True)
    ]
