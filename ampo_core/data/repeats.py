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
    _first: dict[str, tuple[TeacherAnswer, ...]] = field(default_factory=dict)
    _mixed: dict[str, dict[AnswerKey, TeacherAnswer]] = field(default_factory=dict)
    """All answers of the uids whose rows differ, each once."""

    def add(self, uid: str, answers: tuple[TeacherAnswer, ...]) -> None:
        """Note the answers of a row of `uid`."""
        first = self._first.setdefault(uid, answers)
        if first is answers:
            return
        known, found = _by_key(first), _by_key(answers)
        if known.keys() != found.keys():
            self.differing += 1
            known = self._mixed.setdefault(uid, known)
            known |= {key: answer for key, answer in found.items() if key not in known}

    def share(self, question: Question) -> Question:
        """`question`; where its rows differ, with the answers of all of them, each once."""
        if question.uid not in self._mixed:
            return question
        return replace(question, answers=tuple(self._mixed[question.uid].values()))


def _by_key(answers: Sequence[TeacherAnswer]) -> dict[AnswerKey, TeacherAnswer]:
    by_key: dict[AnswerKey, TeacherAnswer] = {}
    for answer in answers:
        by_key.setdefault((answer.teacher, answer.text), answer)
    return by_key
