"""How a chat template begins a prompt and ends an assistant's turn: found by rendering, not by what files say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError
from ampo_registry.types import Message

from ampo_core.config.tree import SampledModel

PROBE = "Forty-two."
"""The content of the turns that are rendered to look at a template: plain, so that no template changes it."""
Render = Callable[[Sequence[Message], bool], str]
"""(messages, whether the model is to answer) -> text, or ConfigError where the template refuses the messages."""


@dataclass(frozen=True, slots=True)
class Ends:
    """`answer`: the token that ends what a teacher wrote; `token_ids`: all that end a sampled response; `texts`: what
    these look like in a text; `notes`: what a person should know of them."""

    answer: int
    token_ids: tuple[int, ...]
    texts: tuple[str, ...]
    notes: tuple[str, ...]


def find_ends(tokenizer: Any, model: SampledModel, render: Render) -> Ends:
    """An answer ends with the first of `model.stop`, else with the token that the template closes an assistant's turn
    with, else with the tokenizer's EOS; a response at that, the EOS, those of generation_config.json and of `stop`.

    Raises ConfigError for a stop text that is not one token.
    """
    eos, generation = int(tokenizer.eos_token_id), _generation_eos(model.path)
    stops = [_one_token(tokenizer, text) for text in ([model.stop] if isinstance(model.stop, str) else model.stop)]
    notes: list[str] = []
    text = _text_of(tokenizer)
    closed, note = _turn_end(tokenizer, render)
    if not stops:
        stops = [eos] if closed is None else [closed]
        notes += (
            [f"model.path: {note}; teacher and SFT answers end with the tokenizer's EOS {text(eos)}"] if note else []
        )
    if stops[0] not in (generation or [eos]):
        notes.append(_conflict(tokenizer, stops[0], eos, generation, by_template=not model.stop))
    ids = tuple(dict.fromkeys([eos, *generation, *stops]))
    if closed is not None and closed not in ids:
        notes.append(
            f"model.stop: the chat template closes an assistant's turn with {text(closed)}, which is no stop token: a "
            f"model that has learnt this template writes on behind it, up to {' or '.join(text(i) for i in ids)}"
        )
    texts = tuple(shown for shown in map(text, ids) if shown)
    return Ends(stops[0], ids, texts, tuple(notes))


def _turn_end(tokenizer: Any, render: Render) -> tuple[int | None, str]:
    """The control token right behind an assistant's words, whitespace aside; or None and why there is none."""
    try:
        text = render([Message("user", PROBE), Message("assistant", PROBE)], False)
    except ConfigError:
        return None, "the chat template refuses a conversation that ends with an assistant's turn"
    before, found, behind = text.rpartition(PROBE)
    if not found or PROBE not in before:
        return None, "the chat template leaves an assistant's turn out"
    tail = behind.strip()
    ids: list[int] = tokenizer.encode(tail, add_special_tokens=False) if tail else []
    if ids and (ids[0] in tokenizer.added_tokens_decoder or ids[0] in tokenizer.all_special_ids):
        return ids[0], ""
    what = f"{tail!r}, which begins with no control token of this tokenizer" if tail else "no token"
    return None, f"the chat template closes an assistant's turn with {what}"


def _conflict(tokenizer: Any, end: int, eos: int, generation: Sequence[int], *, by_template: bool) -> str:
    text = _text_of(tokenizer)
    who = "the chat template closes an assistant's turn with" if by_template else "model.stop names"
    others = f"the tokenizer's EOS is {text(eos)}"
    if generation:
        others += f" and generation_config.json ends a response with {' or '.join(map(text, generation))}"
    overruled = "; model.stop overrules" if by_template else ""
    ends = f"responses end at any of them, teacher and SFT answers end with {text(end)}"
    return f"model.path: {who} {text(end)}, but {others}; {ends}{overruled}"


def _text_of(tokenizer: Any) -> Callable[[int], str]:
    return lambda token: str(tokenizer.decode([token], clean_up_tokenization_spaces=False))


def _one_token(tokenizer: Any, text: str) -> int:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise ConfigError(
            f"model.stop: {text!r} is {len(ids)} tokens in this tokenizer; a stop text must be exactly one"
        )
    return ids[0]


def _generation_eos(path: str) -> list[int]:
    """The EOS ids of the model's generation_config.json; none if it has no such file."""
    if Path(path).is_dir():
        file = Path(path) / "generation_config.json"
        if not file.is_file():
            return []
        try:
            eos = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        except (ValueError, AttributeError) as error:
            raise ConfigError(f"{file} is no JSON object: {error}") from error
    else:
        from transformers import GenerationConfig

        try:
            eos = GenerationConfig.from_pretrained(path).eos_token_id
        except OSError:  # the model has none
            return []
    return [] if eos is None else [eos] if isinstance(eos, int) else [int(token) for token in eos]


class Controls:
    """The texts of the tokens that mean something to a template and nothing in an answer."""

    def __init__(self, tokenizer: Any) -> None:
        special = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        self._texts = tuple(dict.fromkeys([*special, *tokenizer.all_special_tokens]))
        # most texts hold not even what all of them begin with
        first, last = min(self._texts), max(self._texts)
        self._start = "".join(a for a, b in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))

    def found_in(self, text: str) -> tuple[str, ...]:
        """Those that stand in `text`."""
        return tuple(found for found in self._texts if found in text) if self._start in text else ()


def control_notes(found: Iterable[Sequence[str]]) -> list[str]:
    """A line for a person if any of several answers holds control tokens; `found` are those of each."""
    holding = [texts for texts in found if texts]
    if not holding:
        return []
    names = ", ".join(sorted({text for texts in holding for text in texts}))
    return [
        f"answers with the text of a control token inside: {len(holding)} ({names}); it is read as plain characters"
    ]


def bos_note(tokenizer: Any, prompt_ids: Sequence[int]) -> str | None:
    """What is wrong with the BOS of a prompt, if anything: none where the tokenizer puts one, or several."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return None
    count, wanted = leading(prompt_ids, bos), tokenizer.encode("a")[:1] == [bos]
    if count > 1 or (wanted and count == 0):
        found = "no BOS" if count == 0 else f"{count} BOS tokens"
        return (
            f"model.path: the chat template begins a prompt with {found}, where the tokenizer puts one "
            f"{tokenizer.bos_token}; model.chat_template names another template"
        )
    return None


def leading(prompt_ids: Sequence[int], bos: int | None) -> int:
    """How many tokens at the start of a prompt are the BOS."""
    return next((i for i, token in enumerate(prompt_ids) if token != bos), len(prompt_ids))
