"""Rows of one question with different teacher answers: every occurrence gets all of them, and one scored answer.

A question's candidates are looked up by its uid, so its occurrences must not differ in what they offer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ampo_registry.types import Question, TeacherAnswer

AnswerKey = tuple[str, str]


@dataclass(slots=True)
class SharedAnswers:
    """The teacher answers of each uid, over all of its rows, and the first scored answer that one of them brings.
    `differing` counts the rows that repeat a question with other teacher answers than its first row has,
    `scored_differing` those that bring another scored answer."""

    differing: int = 0
    scored_differing: int = 0
    _scored: dict[str, str] = field(default_factory=dict)
    _first: dict[str, tuple[TeacherAnswer, ...]] = field(default_factory=dict)
    _mixed: dict[str, dict[AnswerKey, TeacherAnswer]] = field(default_factory=dict)
    """All answers of the uids whose rows differ, each once."""

    def add(self, uid: str, answers: tuple[TeacherAnswer, ...], scored: str | None) -> None:
        """Note the teacher answers of a row of `uid`, and its scored answer."""
        if scored is not None and self._scored.setdefault(uid, scored) != scored:
            self.scored_differing += 1
        first = self._first.setdefault(uid, answers)
        if first is answers:
            return
        known, found = _by_key(first), _by_key(answers)
        if known.keys() != found.keys():
            self.differing += 1
            known = self._mixed.setdefault(uid, known)
            known |= {key: answer for key, answer in found.items() if key not in known}

    def share(self, question: Question) -> Question:
        """`question`; where its rows differ, with the teacher answers of all of them, each once, and the first scored
        answer."""
        scored, mixed = self._scored.get(question.uid), self._mixed.get(question.uid)
        if mixed is None and scored == question.scored_answer:
            return question
        answers = question.answers if mixed is None else tuple(mixed.values())
        return replace(question, answers=answers, scored_answer=scored)


def _by_key(answers: Sequence[TeacherAnswer]) -> dict[AnswerKey, TeacherAnswer]:
    by_key: dict[AnswerKey, TeacherAnswer] = {}
    for answer in answers:
        by_key.setdefault((answer.teacher, answer.text), answer)
    return by_key
