"""Rows of one question with different teacher answers: every occurrence gets all of them.

A question's candidates are looked up by its uid, so its occurrences must not differ in what they offer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ampo_registry.types import Question, TeacherAnswer

AnswerKey = tuple[str, str]


@dataclass(slots=True)
class SharedAnswers:
    """The teacher answers of each uid, over all of its rows. `differing` counts the rows that repeat a question
    with other answers than its first row has."""

    differing: int = 0
    _first: dict[str, frozenset[AnswerKey]] = field(default_factory=dict)
    _all: dict[str, dict[AnswerKey, TeacherAnswer]] = field(default_factory=dict)
    _mixed: set[str] = field(default_factory=set)

    def add(self, uid: str, answers: Sequence[TeacherAnswer]) -> None:
        """Note the answers of a row of `uid`."""
        found = {(answer.teacher, answer.text) for answer in answers}
        if found != self._first.setdefault(uid, frozenset(found)):
            self.differing += 1
            self._mixed.add(uid)
        known = self._all.setdefault(uid, {})
        for answer in answers:
            known.setdefault((answer.teacher, answer.text), answer)

    def share(self, question: Question) -> Question:
        """`question`; where its rows differ, with the answers of all of them, each once."""
        if question.uid not in self._mixed:
            return question
        return replace(question, answers=tuple(self._all[question.uid].values()))
