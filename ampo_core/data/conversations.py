"""Turns of a conversation: rows of `sft` with `format: messages`, and the system prompt that a config asks for."""

from __future__ import annotations

from collections.abc import Sequence

from ampo_registry.errors import DataError
from ampo_registry.types import Message

from ampo_core.data.contract import is_unicode


def with_system_prompt(messages: Sequence[Message], said: str) -> tuple[Message, ...]:
    """`messages` with the system prompt that `said` asks for: keep, drop, or the text that takes its place."""
    if said == "keep":
        return tuple(messages)
    rest = tuple(message for message in messages if message.role != "system")
    return rest if said == "drop" else (Message("system", said), *rest)


def conversation(value: object, place: str) -> list[Message]:
    """The column `messages` of the row at `place`. Raises DataError that says what was found."""
    wanted = "messages must be a list of {role, content} that ends with the assistant's turn"
    if not isinstance(value, list) or len(value) < 2:
        raise DataError(f"{place}: {wanted}; found {value!r:.120}")
    for turn in value:
        texts = [turn.get(key) for key in ("role", "content")] if isinstance(turn, dict) else [None]
        if not all(isinstance(text, str) and is_unicode(text) for text in texts):
            raise DataError(f"{place}: {wanted}; found the turn {turn!r:.120}")
    if value[-1]["role"] != "assistant":
        raise DataError(f"{place}: {wanted}; the last turn is of {value[-1]['role']!r}")
    return [Message(turn["role"], turn["content"]) for turn in value]
