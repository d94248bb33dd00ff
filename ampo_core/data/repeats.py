"""Rows of one question with different teacher answers: every occurrence gets all of them.

A question's candidates are looked up by its uid, so its occurrences must not differ in what they offer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ampo_registry.types import Question

from ampo_core.data.contract import teacher_answers
from ampo_core.data.rows import Row

AnswerKey = tuple[str, str]


@dataclass(slots=True)
class SharedAnswers:
    """The teacher answers of each uid, over all of its rows. `differing` counts the rows that repeat a question
    with other answers than its first row has."""

    differing: int = 0
    _first: dict[str, frozenset[AnswerKey]] = field(default_factory=dict)
    _all: dict[str, dict[AnswerKey, dict[str, Any]]] = field(default_factory=dict)
    _mixed: set[str] = field(default_factory=set)

    def add(self, uid: str, row: Row) -> None:
        """Note the answers of a row of `uid`."""
        answers: dict[AnswerKey, dict[str, Any]] = {}
        for entry in teacher_answers(row):
            answers.setdefault((entry["source"], entry["content"]), entry)
        if uid not in self._all:
            self._all[uid], self._first[uid] = answers, frozenset(answers)
        elif answers.keys() != self._first[uid]:
            self.differing += 1
            self._mixed.add(uid)
            for key, entry in answers.items():
                self._all[uid].setdefault(key, entry)

    def share(self, question: Question) -> Question:
        """`question`; where its rows differ, with `target_lst` holding the answers of all of them, each once."""
        if question.uid not in self._mixed:
            return question
        return replace(question, extra={**question.extra, "target_lst": list(self._all[question.uid].values())})
