"""Conformance of tasks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from ampo_registry.protocols import BuildContext, Task
from ampo_registry.specs import TaskSpec
from ampo_registry.testing.common import Rules, check_spec_class, check_state, twice
from ampo_registry.types import Message, TaskData, TaskQuestion


def check_task(spec: TaskSpec, folder: Path | None = None, teacher_answers: bool = True) -> None:
    """A task makes the same data for the same seed, and held-out questions that training never sees.

    `teacher_answers`: training questions must have some. With `folder`, the start model is written there (two
    sub-folders) and must be the same twice.
    """
    check_spec_class(spec)
    rule = Rules(spec)
    task: Task = spec.build(BuildContext())
    first, second = twice(task.make, 0)
    rule(first == second, "the same seed must give the same data")
    _check_questions(rule, first)
    rule(not teacher_answers or any(q.teacher_answers for q in first.train), "training needs some teacher answers")
    _check_disjoint(rule, first)
    if folder is not None:
        _check_start_model(rule, task, folder, first)
    check_state(spec, task)


def _check_questions(rule: Rules, data: TaskData) -> None:
    rule(bool(data.train), "there must be training questions")
    rule(all(data.heldout.values()), "no held-out set may be empty", list(data.heldout))
    for question in _questions(data):
        rule(
            bool(question.messages) and question.messages[-1].role == "user",
            "a prompt must end with the user",
            question,
        )
        rule(bool(question.answer.strip()), "every question must have an answer", question)
        rule(bool(question.source), "every question must name its source", question)
        rule(all(a.teacher and a.text for a in question.teacher_answers), "teacher answers need a teacher and a text")
    for conversation in data.sft:
        good = len(conversation) >= 2 and conversation[-1].role == "assistant"
        rule(good, "an SFT conversation must end with the assistant", conversation)


def _questions(data: TaskData) -> Iterable[TaskQuestion]:
    yield from data.train
    for questions in data.heldout.values():
        yield from questions


def _check_disjoint(rule: Rules, data: TaskData) -> None:
    seen: set[tuple[Message, ...]] = {question.messages for question in data.train}
    seen |= {conversation[:-1] for conversation in data.sft}
    for name, questions in data.heldout.items():
        leaked = [question for question in questions if question.messages in seen]
        rule(not leaked, f"no question of the held-out set {name} may be in training", leaked[:1])


def _check_start_model(rule: Rules, task: Task, folder: Path, data: TaskData) -> None:
    written = [task.write_start_model(folder / name, 0) for name in ("first", "second")]
    rule(written[0] is written[1], "write_start_model() must say the same twice", written)
    if not written[0]:
        return
    weights = [sorted((folder / name).glob("*.safetensors")) for name in ("first", "second")]
    rule(bool(weights[0]), "the start model must be written in safetensors")
    same = [one.read_bytes() == other.read_bytes() for one, other in zip(*weights, strict=True)]
    rule(all(same), "the same seed must give the same start model")
    from transformers import AutoTokenizer

    tokenizer: Any = cast(Any, AutoTokenizer).from_pretrained(folder / "first", local_files_only=True)
    messages = [{"role": message.role, "content": message.content} for message in data.train[0].messages]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    rule(bool(rendered), "the start model's tokenizer needs a chat template")
