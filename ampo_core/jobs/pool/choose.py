"""From verified answers to a pool: which answer of a teacher stays, and which questions stay.

Each answer has exactly one fate, so that nothing is dropped uncounted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ampo_registry.types import TeacherAnswer

from ampo_core.jobs.pool.shards import ENDED, Answer, Verdict

Rule = Literal["shortest", "longest", "first", "all"]
Unify = Literal["intersection", "every_teacher"]
Fate = Literal["kept", "not_chosen", "too_long", "incorrect", "not_graded", "cut_off", "ended_otherwise"]
FATES: tuple[Fate, ...] = get_args(Fate)
"""not_chosen: correct, but the rule keeps another; too_long: correct, but over `max_tokens`; cut_off: at the teacher's
limit; ended_otherwise: an endpoint ended it for a reason of its own."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer with its verdict, None if it did not end and so was not graded."""

    answer: Answer
    verdict: Verdict | None

    @property
    def fault(self) -> Fate | None:
        """The fate of one that did not end or was not found correct; None for a correct one, of which others decide."""
        if self.verdict is None:
            return "cut_off" if self.answer.finish_reason == "length" else "ended_otherwise"
        if self.verdict.status != "ok":
            return "not_graded"
        return None if self.verdict.correct else "incorrect"


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that stays, with its length in the student's tokens, end of sequence included."""

    answer: Answer
    tokens: int


@dataclass(slots=True)
class Tally:
    """What became of one teacher's answers, over all questions. `kept_tokens` is summed over the kept ones."""

    questions: int = 0
    solved: int = 0
    answered: int = 0
    fates: Counter[Fate] = field(default_factory=Counter)
    kept_tokens: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    tries: int = 0
    logprobs_kept: int = 0
    logprobs_left_out: int = 0

    @property
    def answers(self) -> int:
        """How many there were."""
        return sum(self.fates.values())

    @property
    def mean_kept(self) -> float | None:
        """Mean length of the kept ones, to a tenth; None if there are none."""
        return round(self.kept_tokens / self.fates["kept"], 1) if self.fates["kept"] else None


def judge(answers: Sequence[Answer], verdicts: Sequence[Verdict]) -> dict[str, list[Judged]]:
    """uid -> its answers in order, each with its verdict. Raises ValueError if an answer that ended has none."""
    by_key = {(verdict.uid, verdict.sample): verdict for verdict in verdicts}
    judged: dict[str, list[Judged]] = {}
    for answer in answers:
        verdict = by_key.pop((answer.uid, answer.sample), None)
        if (verdict is None) is (answer.finish_reason == ENDED):
            raise ValueError(f"answer {answer.sample} to question {answer.uid[:12]} and its verdict do not fit")
        judged.setdefault(answer.uid, []).append(Judged(answer, verdict))
    if by_key:
        raise ValueError(f"{len(by_key)} verdicts belong to no answer")
    return judged


def choose(
    answers: Sequence[Judged], rule: Rule, measure: Callable[[str], int], max_tokens: int | None, tally: Tally
) -> list[Kept]:
    """The answers of one teacher to one question that stay, in the order in which they were sampled.

    `measure` gives the student's tokens of a text. Of equally long ones the first is taken; `all` keeps each text
    once. Every answer is counted in `tally`.
    """
    correct = [Kept(judged.answer, measure(judged.answer.text)) for judged in answers if judged.fault is None]
    fits = [candidate for candidate in correct if max_tokens is None or candidate.tokens <= max_tokens]
    kept = _apply(rule, fits)
    tally.fates.update(judged.fault for judged in answers if judged.fault is not None)
    tally.fates.update(kept=len(kept), not_chosen=len(fits) - len(kept), too_long=len(correct) - len(fits))
    tally.questions += 1
    tally.solved += bool(correct)
    tally.answered += bool(kept)
    tally.kept_tokens += sum(item.tokens for item in kept)
    for judged in answers:
        tally.tokens += judged.answer.tokens or 0
        tally.prompt_tokens += judged.answer.prompt_tokens or 0
        tally.tries += judged.answer.tries
    return kept


def quality(answers: Sequence[Judged]) -> float:
    """The share of a teacher's answers to a question that are correct, without those on which the verifier failed."""
    faults = [judged.fault for judged in answers if judged.fault != "not_graded"]
    return faults.count(None) / len(faults)


def _apply(rule: Rule, fits: Sequence[Kept]) -> list[Kept]:
    if not fits:
        return []
    if rule == "all":
        different: dict[str, Kept] = {}
        for kept in fits:
            different.setdefault(kept.answer.text, kept)
        return list(different.values())
    if rule == "first":
        return [fits[0]]
    return [min(fits, key=lambda kept: kept.tokens if rule == "shortest" else -kept.tokens)]


def composed(
    kept: Mapping[str, Mapping[str, Sequence[TeacherAnswer]]], uids: Sequence[str], teachers: Iterable[str]
) -> list[list[TeacherAnswer]]:
    """For each question of `uids` the answers of `teachers`, in this order; `kept` is teacher -> uid -> answers."""
    names = list(teachers)
    return [[answer for name in names for answer in kept[name].get(uid, ())] for uid in uids]


def united(
    unify: Unify | None,
    kept: Mapping[str, Mapping[str, Sequence[TeacherAnswer]]],
    uids: Sequence[str],
    compositions: Mapping[str, Sequence[str]],
) -> list[str]:
    """The questions that stay in every composition's file, in their order.

    intersection: each composition has an answer to it, of whichever of its teachers. every_teacher: each teacher of
    each composition has one. None: all questions, also those without an answer.
    """
    if unify is None:
        return list(uids)
    if unify == "every_teacher":
        groups = [[teacher] for members in compositions.values() for teacher in members]
    else:
        groups = [list(members) for members in compositions.values()]
    return [uid for uid in uids if all(any(uid in kept[name] for name in group) for group in groups)]
