"""Whether a judge has room for the student's sequences, and reads its token ids as the student does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ampo_registry import BuildContext, ConfigError

AT_ONCE = 2048
TO_READ = "A judge must read the student's tokens as the student does: take one of the same family"


def check_model(path: str, context: BuildContext) -> None:
    """Raise ConfigError for what holds no model, too few positions or rows, or another vocabulary than the
    student's."""
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(path, trust_remote_code=context.trust_remote_code).get_text_config()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{context.place}.path: no model could be loaded from {path}: {_reason(error)}") from error
    check_vocabulary(path, context)
    rows, needed = getattr(config, "vocab_size", None), _rows_of_student(context)
    if rows is not None and needed is not None and rows < needed:
        raise ConfigError(
            f"{context.place}.path: {path} has {rows} rows for tokens and the student {needed}: it may sample one that "
            f"the judge does not have. {TO_READ}"
        )
    scaling: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    positions = getattr(config, "max_position_embeddings", None)
    stretched = scaling.get("rope_type", "default") != "default"
    if positions is not None and context.longest is not None and positions < context.longest and not stretched:
        raise ConfigError(
            f"{context.place}.path: {path} has {positions} positions, and the run's sequences have up to "
            f"{context.longest} tokens"
        )


def check_vocabulary(path: str, context: BuildContext, option: str = "path") -> None:
    """Raise ConfigError unless each token of the student has the same id in the tokenizer at `path`.

    Tokens that only the judge has do no harm: no response of the student holds one.
    """
    from transformers import AutoTokenizer

    key = f"{context.place}.{option}"
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, trust_remote_code=context.trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: no tokenizer could be loaded from {path}: {_reason(error)}") from error
    own: dict[str, int] = context.tokenizer.get_vocab()
    theirs: dict[str, int] = tokenizer.get_vocab()
    differing = sorted((number, token) for token, number in own.items() if theirs.get(token) != number)
    if differing:
        number, token = differing[0]
        found = f"has it at {theirs[token]}" if token in theirs else "has no such token"
        raise ConfigError(
            f"{key}: {path} has another vocabulary than the student: {len(differing)} of {len(own)} "
            f"tokens differ, first {token!r}, which is {number} to the student; the judge {found}. {TO_READ}"
        )


def _rows_of_student(context: BuildContext) -> int | None:
    """Rows of the student's embedding, of which it may sample each; None where its model is not known."""
    from transformers import AutoConfig

    if context.model_path is None:
        return None
    config: Any = AutoConfig.from_pretrained(context.model_path, trust_remote_code=context.trust_remote_code)
    return getattr(config.get_text_config(), "vocab_size", None)


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def first_misread(
    ids: Sequence[int], own: Callable[[Sequence[int]], str], theirs: Callable[[Sequence[int]], str]
) -> int | None:
    """The first of `ids` of which `own` and `theirs` make other texts, None if there is none.

    How either splits a text into tokens is no matter: a judge gets ids.
    """
    for start in range(0, len(ids), AT_ONCE):
        part = ids[start : start + AT_ONCE]
        if own(part) == theirs(part):
            continue
        while len(part) > 1:
            first = part[: len(part) // 2]
            part = part[len(part) // 2 :] if own(first) == theirs(first) else first
        return part[0]
    return None
