"""Tasks: the data of a small world, whose names become files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError
from ampo_registry.text import FILE_NAME, MAX_NAME
from ampo_registry.types import Message, TaskData, TaskQuestion, TeacherAnswer

from ampo_core.checked.call import PluginFault, shown
from ampo_core.checked.component import Checked


class CheckedTask(Checked):
    """Questions with messages and answers, in sets whose names can be files. A ValueError of the task says that its
    options cannot be met."""

    def make(self, seed: int) -> TaskData:
        found: object = self._asked("make", seed)
        if not isinstance(found, TaskData):
            raise self.asked.wrong("make", shown(found), "a TaskData")
        if not isinstance(found.heldout, Mapping):
            raise self.asked.wrong("make", f"heldout = {shown(found.heldout)}", "held-out sets by name")
        for name in found.heldout:
            if not isinstance(name, str) or len(name) > MAX_NAME or not re.fullmatch(FILE_NAME, name):
                allowed = f"at most {MAX_NAME} letters, digits, '.', '_' and '-', a letter or digit first"
                raise self.asked.wrong("make", f"a held-out set named {shown(name)}", allowed)
        for name, questions in {"train": found.train, **found.heldout}.items():
            self._questions(name, questions)
        self._each("sft", found.sft, _is_conversation, "conversations: tuples of Messages")
        return found

    def write_start_model(self, folder: Path, seed: int) -> bool:
        found: object = self._asked("write_start_model", folder, seed)
        if not isinstance(found, bool):
            raise self.asked.wrong("write_start_model", shown(found), "True, or False where there is no model")
        if found and not (folder / "config.json").is_file():
            raise self.asked.wrong("write_start_model", "True, and no config.json in its folder", "a model there")
        return found

    def _asked(self, method: str, *given: object) -> object:
        try:
            return self.asked.ask(method, *given)
        except PluginFault as fault:
            if isinstance(fault.__cause__, ValueError):
                raise ConfigError(f"task {self.asked.name}: {fault.__cause__}") from fault
            raise

    def _questions(self, name: str, questions: object) -> None:
        expected = "TaskQuestions with messages, answer, source, extra and teacher_answers"
        self._each(name, questions, _is_question, expected)

    def _each(self, name: str, items: object, good: Any, expected: str) -> None:
        if not isinstance(items, list | tuple):
            raise self.asked.wrong("make", f"{name} = {shown(items)}", f"a tuple of {expected}")
        for number, item in enumerate(items, start=1):
            if not good(item):
                raise self.asked.wrong("make", f"{name}, number {number}: {shown(item)}", expected)


def _is_question(item: object) -> bool:
    return (
        isinstance(item, TaskQuestion)
        and _is_conversation(item.messages)
        and isinstance(item.answer, str)
        and isinstance(item.source, str)
        and isinstance(item.extra, Mapping)
        and isinstance(item.teacher_answers, list | tuple)
        and all(isinstance(a, TeacherAnswer) and _are_texts(a.teacher, a.text) for a in item.teacher_answers)
    )


def _is_conversation(item: object) -> bool:
    many = isinstance(item, list | tuple) and bool(item)
    return many and all(isinstance(turn, Message) and _are_texts(turn.role, turn.content) for turn in item)  # type: ignore[attr-defined]


def _are_texts(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)
