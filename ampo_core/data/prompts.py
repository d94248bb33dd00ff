"""What a person should know of prompts as the model reads them: characters it has no token for, a format that nothing
asks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from ampo_registry.components import specs_in
from ampo_registry.specs import RewardSpec, component_name
from ampo_registry.types import Question

from ampo_core.data.tokens import PromptTokenizer

TAG, BOX = "<answer>", "\\boxed"
SHOWN = 8
"""Different characters without a token that are named."""
LOOKED_AT = 64
"""Prompts, evenly spread over a set, in which characters without any token are looked for: each is tokenised again."""


def prompt_notes(
    where: str, questions: Sequence[Question], tokenizer: PromptTokenizer, reward: RewardSpec
) -> tuple[str, ...]:
    """Lines for a person on the `questions` that the config names at `where`."""
    found = (_unknown(questions, tokenizer), _dropped(questions, tokenizer), _unasked(questions, tokenizer, reward))
    return tuple(f"{where}: {text}" for text in found if text)


def _unknown(questions: Sequence[Question], tokenizer: PromptTokenizer) -> str | None:
    """That the model reads something else than what stands there, if so."""
    unknown = tokenizer.unknown_id
    if unknown is None:
        return None
    counts = [int(numpy.count_nonzero(numpy.asarray(q.prompt_token_ids.buffer) == unknown)) for q in questions]
    if not any(counts):
        return None
    touched = [question for question, count in zip(questions, counts, strict=True) if count]
    texts: dict[str, None] = {}
    for question in touched[:SHOWN]:
        pieces = tokenizer.pieces(question.messages, question.prompt_token_ids)
        texts |= dict.fromkeys(text for text, fate in pieces if fate == "unknown")
    share = sum(counts) / sum(len(question.prompt_token_ids) for question in questions)
    shown = ", ".join(map(repr, list(texts)[:SHOWN]))
    return (
        f"{share:.2%} of the tokens of prompts, in {len(touched)} of {len(questions)} prompts, are unknown to the "
        f"tokenizer of model.path: where {shown or 'they'} stand{'s' if len(texts) == 1 else ''}, the model reads "
        f"{tokenizer.shown([unknown])}"
    )


def _dropped(questions: Sequence[Question], tokenizer: PromptTokenizer) -> str | None:
    """That the tokenizer passes over characters without a word, as byte-less BPE does, if so."""
    some = questions[:: -(-len(questions) // LOOKED_AT) or 1]
    lost = [
        [text for text, fate in tokenizer.pieces(question.messages, question.prompt_token_ids) if fate == "dropped"]
        for question in some
    ]
    if not any(lost):
        return None
    texts = list(dict.fromkeys(text for found in lost for text in found))
    count, touched = sum(len(text) for found in lost for text in found), sum(map(bool, lost))
    return (
        f"{count} characters in {touched} of {len(some)} prompts that were looked at have no token in the tokenizer of "
        f"model.path: where {', '.join(map(repr, texts[:SHOWN]))} stand{'s' if len(texts) == 1 else ''}, the model "
        "reads nothing"
    )


def _wants_tags(reward: RewardSpec) -> tuple[str, tuple[str, ...]] | None:
    """What the reward, or a part of it, does with tags, if anything, and what a prompt may ask for: a box too, where
    `untagged` has no word for it, for then it is read in any case."""
    for spec in specs_in(reward):
        if not isinstance(spec, RewardSpec):
            continue
        name = component_name(type(spec))
        if getattr(spec, "untagged", None) == "wrong":
            boxes = "boxed" not in str(type(spec).model_fields["untagged"].annotation)
            return f"reward {name} finds no answer without {TAG}…</answer> (untagged: wrong)", (TAG, BOX)[: 1 + boxes]
        if spec.format_weight > 0.0 and type(spec).formatted is RewardSpec.formatted:
            return f"reward {name} pays for {TAG}…</answer> (format_weight {spec.format_weight:g})", (TAG,)
    return None


def _unasked(questions: Sequence[Question], tokenizer: PromptTokenizer, reward: RewardSpec) -> str | None:
    """That the reward wants tags of which neither prompt nor template says anything, if so. A tokenizer in which the
    tag is a token belongs to a model that was made to write it."""
    found = _wants_tags(reward)
    if found is None:
        return None
    wants, asks = found
    silent = [q for q in questions if not any(ask in message.content for message in q.messages for ask in asks)]
    if not silent or len(tokenizer.encode(TAG)[0]) == 1 or TAG in tokenizer.prompt_text(silent[0].messages):
        return None
    return (
        f"{wants}, and in {len(silent)} of {len(questions)} prompts neither system prompt, question nor chat template "
        "asks for it: data.system_prompt can, unless the model has learnt it"
    )
