"""Whether a judge reads the student's token ids as the student does."""

from __future__ import annotations

from typing import Any

from ampo_registry import BuildContext, ConfigError


def check_vocabulary(path: str, context: BuildContext) -> None:
    """Raise ConfigError unless each token of the student has the same id in the tokenizer at `path`.

    Tokens that only the judge has do no harm: no response of the student holds one.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, trust_remote_code=context.trust_remote_code)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{context.place}.path: no tokenizer could be loaded from {path}: {reason}") from error
    own: dict[str, int] = context.tokenizer.get_vocab()
    theirs: dict[str, int] = tokenizer.get_vocab()
    differing = sorted((number, token) for token, number in own.items() if theirs.get(token) != number)
    if differing:
        number, token = differing[0]
        found = f"has it at {theirs[token]}" if token in theirs else "has no such token"
        raise ConfigError(
            f"{context.place}.path: {path} has another vocabulary than the student: {len(differing)} of {len(own)} "
            f"tokens differ, first {token!r}, which is {number} to the student; the judge {found}. A judge must read "
            "the student's tokens as the student does: take one of the same family"
        )
