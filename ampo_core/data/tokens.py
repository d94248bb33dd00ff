"""Prompts and teacher answers as token ids: the one place where text meets the tokenizer."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from ampo_registry.errors import ConfigError, unloadable
from ampo_registry.tokens import TokenIds
from ampo_registry.types import Message

from ampo_core.config.tree import SampledModel
from ampo_core.data.turns import Controls, bos_note, find_ends, leading

THINK = "<think>\n"
READ_FROM = ("is_local", "local_files_only")
Fate = Literal["read", "unknown", "dropped"]
"""Of characters of a prompt: tokens stand for them, the unknown token does, or none."""


class PromptTokenizer:
    """A tokenizer together with what the model block says about chat template and stop tokens.

    `tokenizer` is the transformers tokenizer; `stop_token_ids` end a sampled response, and `end_token_id`, one of them,
    ends a teacher's answer (find_ends); tokens from `known_ids` on, which a larger LM head may have, decode to nothing.
    `notes` are what a person should know of template and tokens.
    Raises ConfigError for a tokenizer without EOS or chat template and for a stop text that is not one token.
    """

    def __init__(self, tokenizer: Any, model: SampledModel) -> None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"model.path: the tokenizer of {model.path} has no EOS token; set eos_token in its files")
        self.tokenizer = tokenizer
        self._template = _chat_template(tokenizer, model)
        self._template_options = dict(model.chat_template_options)
        self._controls = Controls(tokenizer)
        ends = find_ends(tokenizer, model, self._rendered)
        self.end_token_id, self.stop_token_ids, self._stop_texts = ends.answer, ends.token_ids, ends.texts
        self.notes = (*ends.notes, *self._bos_notes())
        self.known_ids = max(tokenizer.get_vocab().values(), default=-1) + 1

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of `messages` in the chat template, up to where the model begins to answer.

        Raises ConfigError if the template refuses the messages (some know no system role).
        """
        return list(self._templated(messages, tokenize=True, return_dict=False, add_generation_prompt=True))

    def prompts_ids(self, texts: Sequence[str]) -> list[TokenIds]:
        """The `prompt_ids` of many prompts at once, from what `prompt_text` gives for them."""
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False) if texts else {}
        return [TokenIds(ids) for ids in encoded.get("input_ids", ())]

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """`messages` in the chat template, up to where the model begins to answer. Raises as `prompt_ids`."""
        return self._rendered(messages, True)

    def cut_prompt(self, ids: Sequence[int], length: int) -> TokenIds:
        """The last of a prompt's tokens, behind the BOS that it begins with: `length` in all."""
        bos = self.tokenizer.bos_token_id
        # a BOS that comes again is what this template opens each turn with
        kept = 0 if bos in ids[(first := leading(ids, bos)) :] else min(first, length)
        return TokenIds([*ids[:kept], *ids[len(ids) - (length - kept) :]])

    def answer_text(self, text: str, prompt_ids: Sequence[int]) -> str:
        """A teacher's answer as the student is to write it: without stop texts at its end, and without a leading
        `<think>` line where the prompt already ends with one."""
        if text.startswith(THINK) and self._opens_thinking(prompt_ids):
            text = text.removeprefix(THINK)
        return self._without_end(text)

    def answer_ids(self, text: str, prompt_ids: Sequence[int]) -> list[int]:
        """Token ids of `answer_text` and exactly one token that ends it."""
        return [*self.encode(self.answer_text(text, prompt_ids))[0], self.end_token_id]

    def controls_in(self, text: str) -> tuple[str, ...]:
        """The texts of control tokens that an answer holds before its end."""
        return self._controls.found_in(self._without_end(text))

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of `text` and the characters (start, end) of each.

        The text of a control token inside is encoded as ordinary characters, for it ends and opens nothing there.
        """
        inside = bool(self._controls.found_in(text))
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=inside
        )
        return list(encoded["input_ids"]), list(encoded["offset_mapping"])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` without special tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def shown(self, ids: Iterable[int]) -> str:
        """The text of `ids` as the model reads it, special tokens and all."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    @property
    def unknown_id(self) -> int | None:
        """The token of characters that have none; None where there is no such token, or only by name: many tokenizers
        read every character, and call their EOS so."""
        tokenizer = self.tokenizer
        named = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
        return None if tokenizer.unk_token_id in named else tokenizer.unk_token_id

    def pieces(self, messages: Sequence[Message], ids: TokenIds) -> list[tuple[str, Fate]]:
        """The text of the prompt `ids` of `messages` in pieces, and what becomes of each. Of a prompt that was cut the
        tokens' text as one piece."""
        text, unknown = self.prompt_text(messages), self.unknown_id
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if encoded["input_ids"] != list(ids):
            return [(self.shown(ids), "read")]
        found: list[tuple[str, Fate]] = []
        done = 0
        for token, (start, end) in [*zip(ids, encoded["offset_mapping"], strict=True), (None, (len(text), len(text)))]:
            if start > done:
                found.append((text[done:start], "dropped" if text[done:start].strip() else "read"))
            if end > max(start, done):
                is_unknown = token == unknown and unknown is not None
                found.append((text[max(start, done) : end], "unknown" if is_unknown else "read"))
            done = max(done, start, end)
        missing = len(text) - sum(end - start for start, end in encoded["offset_mapping"])
        return self._by_character(text, missing) or found

    def _by_character(self, text: str, missing: int) -> list[tuple[str, Fate]]:
        """`text` in runs of characters that have a token and that have none, if `missing` of them have none: behind a
        character that BPE drops, the offsets of its tokens are shifted. Empty where the offsets can be trusted."""
        added = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, added))})", text) if missing > 0 else []
        plain = parts[::2]
        known = {c: bool(self.tokenizer(c, add_special_tokens=False)["input_ids"]) for c in set("".join(plain))}
        if missing <= 0 or sum(not known[c] for part in plain for c in part) != missing:
            return []
        fates = [
            (c, place % 2 == 1 or known[c] or c.isspace())
            for place, part in enumerate(parts)
            for c in ([part] if place % 2 else part)
        ]
        runs = groupby(fates, key=lambda pair: pair[1])
        return [("".join(c for c, _ in run), "read" if read else "dropped") for read, run in runs]

    def save(self, folder: Path) -> None:
        """Write the tokenizer into `folder`, with the chat template that prompts are made with."""
        saved = copy.copy(self.tokenizer)
        if self._template is not None:
            saved.chat_template = self._template
        # where this one was read from means nothing elsewhere
        saved.init_kwargs = {key: v for key, v in saved.init_kwargs.items() if key not in READ_FROM}
        saved.save_pretrained(folder)

    def _opens_thinking(self, prompt_ids: Sequence[int]) -> bool:
        # However a tokenizer splits it, the line has at most as many tokens as bytes.
        tail = self.tokenizer.decode(list(prompt_ids[-len(THINK) :]), clean_up_tokenization_spaces=False)
        return bool(tail.endswith(THINK))

    def _without_end(self, text: str) -> str:
        """`text` without the stop texts at its end, whatever blanks follow them."""
        while True:
            ended = next((t for t in (text, text.rstrip()) if t.endswith(self._stop_texts)), None)
            if ended is None:
                return text
            text = next(ended.removesuffix(stop) for stop in self._stop_texts if ended.endswith(stop))

    def _bos_notes(self) -> list[str]:
        try:
            note = bos_note(self.tokenizer, self.prompt_ids([Message("user", "1 + 1")]))
        except ConfigError:  # said of the first real prompt, which may be of other roles
            return []
        return [] if note is None else [note]

    def _rendered(self, messages: Sequence[Message], answering: bool) -> str:
        return str(self._templated(messages, tokenize=False, add_generation_prompt=answering))

    def _templated(self, messages: Sequence[Message], **options: Any) -> Any:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self.tokenizer.apply_chat_template(
                turns, chat_template=self._template, **options, **self._template_options
            )
        except Exception as error:  # a template is a program of its own
            roles = ", ".join(message.role for message in messages)
            raise ConfigError(f"the chat template refuses a prompt with the roles {roles}: {error}") from error


def load_tokenizer(model: SampledModel, trust_remote_code: bool = False) -> PromptTokenizer:
    """The tokenizer of `model.path`, from its folder alone if it is one, else from the Hub (or its cache).

    Raises ConfigError if there is none, or as PromptTokenizer does.
    """
    from transformers import AutoTokenizer

    is_folder = Path(model.path).is_dir()
    if not is_folder and not _may_be_hub_name(model.path):
        raise ConfigError(f"model.path: there is no folder {model.path}, and it cannot be a Hub name (owner/name)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model.path, trust_remote_code=trust_remote_code, local_files_only=is_folder
        )
    except (OSError, ValueError, KeyError) as error:
        raise unloadable("tokenizer", model.path, error) from error
    return PromptTokenizer(tokenizer, model)


def _may_be_hub_name(path: str) -> bool:
    return not path.startswith((".", "/", "~")) and path.count("/") <= 1 and "\\" not in path


def _chat_template(tokenizer: Any, model: SampledModel) -> str | None:
    """The text of `model.chat_template`, or None for the tokenizer's own."""
    if model.chat_template is not None:
        try:
            return Path(model.chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"model.chat_template: {model.chat_template} cannot be read: {error}") from error
    if not tokenizer.chat_template:
        raise ConfigError(
            f"model.path: the tokenizer of {model.path} has no chat template; "
            "name a Jinja file that has one in model.chat_template"
        )
    return None
