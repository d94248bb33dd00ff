"""Which columns of a row hold what: the layouts of data sets that people have, and how a config says its own.

A layout is a mapping of columns and nothing else. What a mapped row becomes stands in `ampo_core/data/layouts.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, Field

from ampo_core.config.nodes import Finding, KeyPath
from ampo_core.config.tree import Block

BOXED = "boxed"
"""The answer pattern that is no regular expression: the content of the last `\\boxed{…}`, its braces balanced."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns (dots reach inside) that may hold the prompt, the first one that a row has; and those that may hold
    the answer, each with the pattern that finds it there, the first one that gives an answer."""

    prompt: tuple[str, ...]
    answer: tuple[tuple[str, str | None], ...]
    source: str | None = None
    ability: str | None = None
    target: str | None = None


LayoutName = Literal["verl", "gsm8k", "math", "trl", "openrlhf"]
LAYOUTS: dict[LayoutName, Layout] = {
    "verl": Layout(("prompt",), (("reward_model.ground_truth", None),)),
    "gsm8k": Layout(("question",), (("answer", r"####\s*(.+)"),)),
    "math": Layout(("problem",), (("answer", None), ("solution", BOXED))),
    "trl": Layout(("prompt",), (("answer", None), ("ground_truth", None), ("solution", BOXED), ("solution", None))),
    "openrlhf": Layout(
        ("input", "prompt", "messages", "context_messages"), (("label", None), ("answer", None), ("ground_truth", None))
    ),
}


def _pattern(text: str) -> str:
    """`text`, if it is an answer pattern. Raises ValueError."""
    if text == BOXED:
        return text
    try:
        groups = re.compile(text).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if groups > 1:
        raise ValueError(f"{groups} groups, and the answer is one; write (?:…) where nothing is to be kept")
    return text


class ColumnsConfig(Block):
    """Columns of the rows, dots reach inside; null = the layout's."""

    prompt: str | None = Field(default=None, description="the question: text, or a list of {role, content}")
    answer: str | None = Field(default=None, description="the ground truth: text, a number, true or false")
    source: str | None = Field(
        default=None, description="name of the data set; null = data_source, or else the file's or the Hub's name"
    )
    ability: str | None = Field(default=None, description="kind of question; null = ability, where there is one")
    target: str | None = Field(
        default=None,
        description="a teacher's answer, as text or as in target_lst; null = target_lst or target, where there is one",
    )


LayoutField = Annotated[
    LayoutName | Annotated[list[LayoutName], Field(min_length=1)] | None,
    Field(
        description="how the rows stand in the files (docs/data.md); of several, each row is read by the first whose "
        "columns it has; null = in the data contract, as columns says"
    ),
]
ColumnsField = Annotated[
    ColumnsConfig | None, Field(description="which column holds what, before what the layout says")
]
PatternField = Annotated[
    Annotated[str, AfterValidator(_pattern)] | None,
    Field(
        description="regular expression that finds the answer in its column: the last match, of it the group, e.g. "
        "'#### (.*)'; boxed = the last \\boxed{…}; null = the layout's, or the column as it is"
    ),
]


class SaysLayout(Protocol):
    """A block of a config that says how rows are read."""

    @property
    def layout(self) -> LayoutName | list[LayoutName] | None: ...
    @property
    def columns(self) -> ColumnsConfig | None: ...
    @property
    def answer_pattern(self) -> str | None: ...


def said(block: SaysLayout) -> bool:
    """Whether `block` says anything of how rows are read."""
    return block.layout is not None or block.columns is not None or block.answer_pattern is not None


def layouts_of(block: SaysLayout) -> tuple[Layout, ...]:
    """The layouts that `block` says; none for the data contract itself."""
    if isinstance(block.layout, list):
        return tuple(LAYOUTS[name] for name in block.layout)
    if not said(block):
        return ()
    base, own = LAYOUTS[block.layout or "verl"], block.columns or ColumnsConfig()
    answer = base.answer
    if own.answer is not None:
        answer = tuple(pair for pair in answer if pair[0] == own.answer) or ((own.answer, None),)
    if block.answer_pattern is not None:
        answer = tuple(dict.fromkeys((name, block.answer_pattern) for name, _ in answer))
    prompt = (own.prompt,) if own.prompt else base.prompt
    return (Layout(prompt, answer, own.source, own.ability, own.target),)


def layout_findings(block: SaysLayout, path: KeyPath) -> Iterator[Finding]:
    """Columns and a pattern beside several layouts; a column of the answer in the place of one that the layout finds it
    in by a pattern, without saying a pattern."""
    own, name = block.columns, block.layout
    if isinstance(name, list):
        for option in ("columns", "answer_pattern"):
            if getattr(block, option) is not None:
                yield Finding((*path, option), "with several layouts there is nothing that it could be said of")
        return
    if own is None or own.answer is None or name is None or block.answer_pattern is not None:
        return
    patterns = [pattern for _, pattern in LAYOUTS[name].answer if pattern is not None]
    if patterns and own.answer not in dict(LAYOUTS[name].answer):
        text = f"with another column than layout {name}'s, say how the answer is found in it too: answer_pattern: "
        yield Finding((*path, "columns", "answer"), f"{text}{patterns[0]!r}; or leave layout away")
