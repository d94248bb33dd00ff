"""Small, valid pieces of data for tests of components, and a scorer that needs no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from ampo_registry.samples import Outcome, Sample
from ampo_registry.tokens import LogProbs, TokenIds
from ampo_registry.types import (
    FinishReason,
    Grade,
    GroupReport,
    Guidance,
    Message,
    Question,
    Rollout,
    RolloutGroup,
    Selection,
    SelectionRequest,
    StepReport,
    TeacherAnswer,
)

EOS = 0


def example_question(
    index: int = 0,
    answer: str = "42",
    extra: Mapping[str, object] | None = None,
    answers: Sequence[TeacherAnswer] = (),
) -> Question:
    """A question; another `index` gives another one."""
    text = f"Question {index}: what is {index} + 42 - {index}?"
    messages = (Message("system", "Put the answer within <answer> </answer>."), Message("user", text))
    ids = TokenIds(range(1, 8))
    return Question(f"question-{index}", messages, ids, answer, "conformance", extra or {}, tuple(answers))


def example_rollout(tokens: int = 6, finish_reason: FinishReason = "stop") -> Rollout:
    """A response of `tokens` tokens."""
    ids = tuple(range(1, tokens)) + ((EOS,) if finish_reason == "stop" else (tokens,))
    return Rollout(TokenIds(ids), LogProbs([-0.5] * tokens), " ".join(["word"] * tokens), finish_reason, 0)


def example_grade(correct: bool = True, formatted: bool = True) -> Grade:
    """A grade by Eq. 8 with λ = 0.1."""
    return Grade(0.9 * correct + 0.1 * formatted, correct, formatted)


def example_guidance(
    teacher: str = "teacher-0", tokens: int = 8, answer: str = "42", formatted: bool = True
) -> Guidance:
    """A correct teacher answer of `tokens` tokens, EOS included; without answer tags unless `formatted`."""
    tail = f"<answer>{answer}</answer>" if formatted else answer
    grade = example_grade(formatted=formatted)
    return Guidance(teacher, f"Reasoning of {teacher}. {tail}", TokenIds([*range(1, tokens), EOS]), grade)


def example_group(
    rewards: Sequence[float] = (0.0, 0.1, 0.0, 0.1), threshold: float = 0.6, question: Question | None = None
) -> RolloutGroup:
    """A group with these rewards; a reward of at least 0.9 counts as correct."""
    grades = tuple(Grade(reward, reward >= 0.9, reward in (0.1, 1.0)) for reward in rewards)
    rollouts = tuple(example_rollout(4 + index) for index in range(len(rewards)))
    return RolloutGroup(question or example_question(), rollouts, grades, threshold)


def example_request(
    candidates: Sequence[Guidance] | int = 4, k: int = 2, seed: int = 0, question: Question | None = None
) -> SelectionRequest:
    """A request for `k` of these candidates, or of so many made ones whose lengths differ and repeat."""
    if isinstance(candidates, int):
        lengths = Random(f"lengths/{seed}")
        candidates = [
            example_guidance(f"teacher-{i}", lengths.choice((3, 5, 8, 13, 21)), formatted=i % 3 != 2)
            for i in range(candidates)
        ]
    group = example_group(question=question or example_question(seed))
    return SelectionRequest(group.question, group.rollouts, tuple(candidates), k, Random(seed), group.grades)


def example_requests(seed: int = 0) -> list[SelectionRequest]:
    """Requests of all shapes: one candidate, fewer candidates than k, as many, and more."""
    shapes = [(1, 1), (1, 3), (2, 4), (3, 3), (4, 2), (8, 2), (5, 1)]
    return [example_request(count, k, seed * 100 + i) for i, (count, k) in enumerate(shapes)]


def example_outcomes(
    requests: Sequence[SelectionRequest],
    selections: Sequence[Sequence[Selection]] | None = None,
    step: int = 1,
    solved: Sequence[Question] = (),
) -> list[Outcome]:
    """What may have become of these requests: what was selected for each (without `selections`, its first candidates)
    has taken the places of the first rollouts. Questions that are `solved` come behind them: every response was right,
    so they needed no answer, and the group filter left them out."""
    chosen = selections or [[Selection(found) for found in request.candidates[: request.k]] for request in requests]
    outcomes: list[Outcome] = []
    for request, picked in zip(requests, chosen, strict=True):
        grades = request.grades or (example_grade(False),) * len(request.rollouts)
        sampled = [Sample.sampled(request.question, *pair) for pair in zip(request.rollouts, grades, strict=True)]
        samples = [*(Sample.answer(request.question, selection) for selection in picked), *sampled[len(picked) :]]
        outcomes.append(_outcome(request.question, grades, samples, len(outcomes), step, request, picked))
    for question in solved:
        group = example_group((1.0,) * 4, question=question)
        samples = [Sample.sampled(question, *pair) for pair in zip(group.rollouts, group.grades, strict=True)]
        outcomes.append(_outcome(question, group.grades, samples, len(outcomes), step))
    return outcomes


def _outcome(
    question: Question,
    grades: Sequence[Grade],
    samples: Sequence[Sample],
    position: int,
    step: int,
    request: SelectionRequest | None = None,
    selections: Sequence[Selection] = (),
) -> Outcome:
    mean = sum(sample.reward for sample in samples) / max(len(samples), 1)
    return Outcome(
        question=question,
        grades=tuple(grades),
        candidates=() if request is None else request.candidates,
        selections=tuple(selections),
        samples=tuple(samples),
        advantages=tuple(sample.reward - mean for sample in samples),
        trained=request is not None,
        step=step,
        position=position,
    )


def example_report(
    texts: Sequence[Sequence[str]] = (("yes", "no"),), step: int = 1, metrics: Mapping[str, float] | None = None
) -> StepReport:
    """What an observer gets after a step in which each of these groups was trained; the first of each was right."""
    groups = [
        GroupReport(
            question=example_question(number),
            texts=tuple(group),
            rewards=tuple(1.0 if place == 0 else 0.1 for place in range(len(group))),
            sources=("policy",) * len(group),
            scores=(None,) * len(group),
        )
        for number, group in enumerate(texts)
    ]
    return StepReport(step, metrics or {"reward/mean": 0.5}, tuple(groups))


class FakeScorer:
    """Log-probs that depend on question and answer text only, in place of a model.

    `by_teacher` fixes them for some teachers. As the real scorer it gives none for a text that has not exactly one
    `<answer>`. `items` holds all pairs that were asked for, `calls` how often.
    """

    def __init__(self, by_teacher: Mapping[str, Sequence[float]] | None = None) -> None:
        self.by_teacher = dict(by_teacher or {})
        self.items: list[tuple[Question, Guidance]] = []
        self.calls = 0

    def answer_logprobs(self, items: Sequence[tuple[Question, Guidance]]) -> list[list[float]]:
        """One list for each item, as the scorer of a run gives it; the same whatever else is asked for."""
        self.calls += 1
        self.items += items
        return [self._logprobs(question, guidance) for question, guidance in items]

    def _logprobs(self, question: Question, guidance: Guidance) -> list[float]:
        if guidance.text.count("<answer>") != 1:
            return []
        if guidance.teacher in self.by_teacher:
            return list(self.by_teacher[guidance.teacher])
        source = Random(f"{question.uid}/{guidance.text}")
        return [-source.expovariate(1.0) for _ in range(source.randint(1, 4))]
