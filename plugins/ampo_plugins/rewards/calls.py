"""How verl and TRL call a reward function: by which names, and what comes back."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ampo_registry import GradeRequest
from ampo_registry.text import nearest

Style = Literal["verl", "trl"]
GIVEN = {"verl": ("data_source", "solution_str", "ground_truth", "extra_info"), "trl": ("prompts", "completions")}
"""What each of them gives by name; TRL also every column of the data set, as a list."""
NEEDED = {"verl": "solution_str", "trl": "completions"}
FURTHER = ("row", "messages", "finish_reason")
"""Given in both styles to a function that names them: the raw row, the prompt's turns, and why the response ended."""
NOT_HERE = {
    "completion_ids": "no token ids reach a reward; for lengths there are finish_reason and reward.overlong_penalty",
    "trainer_state": "there is no trainer's state",
    "log_extra": "there is no log of texts; numbers become metrics with style verl, {score: …, name: number}",
    "log_metric": "it is not called with one; numbers become metrics with style verl, {score: …, name: number}",
    "environments": "there are no environments to step through",
}
"""Arguments of TRL that a reward here cannot have."""
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class NoColumn(Exception):
    """The row lacks what an argument of the function is named after."""


def misfit(function: Callable[..., object], style: Style, arguments: Mapping[str, object]) -> str | None:
    """Why `function` cannot be called in `style` with these further arguments, or None."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        return f"its arguments are not known ({error}); wrap it in a function of your own"
    names = [parameter.name for parameter in parameters if parameter.kind in _NAMED]
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    given = GIVEN[style]
    shown = f"{', '.join(given)}{' and the columns' if style == 'trl' else ''}"
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY and parameter.default is inspect.Parameter.empty:
            return f"it takes {parameter.name} by position alone; it is called by names: {shown}"
    if NEEDED[style] not in names and not takes_all:
        other: Style = "trl" if style == "verl" else "verl"
        hint = f"; style {other} may fit" if NEEDED[other] in names else ""
        return f"it has no argument {NEEDED[style]}; it is called with {shown}{hint}"
    for name in arguments:
        if name in (*given, *FURTHER):
            return f"arguments: {name} is given by the run"
        if name not in names and not takes_all:
            near = nearest(name, names)
            return f"it has no argument {name}" + (f"; did you mean {near!r}?" if near else "")
    known = {*given, *FURTHER, *arguments}
    lacking = [p.name for p in parameters if p.kind in _NAMED and p.default is p.empty and p.name not in known]
    if style == "trl":
        lacking = [name for name in lacking if name in NOT_HERE]
    if not lacking:
        return None
    why = NOT_HERE.get(lacking[0], f"nothing gives it; it is called with {shown}, and `arguments` may add others")
    return f"its argument {lacking[0]}: {why}"


def call(
    function: Callable[..., object],
    style: Style,
    request: GradeRequest,
    arguments: Mapping[str, object],
    *,
    conversational: bool | None,
) -> object:
    """What `function` gives for one response. It gets of what there is the arguments that it has; of TRL's columns a
    function with `**kwargs` gets all. Raises NoColumn."""
    given = _verl(request) if style == "verl" else _trl(request, conversational)
    turns = [{"role": message.role, "content": message.content} for message in request.messages]
    further = {"row": dict(request.extra), "messages": turns, "finish_reason": request.finish_reason}
    parameters = inspect.signature(function).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in _NAMED]
    as_given = {name: [value] for name, value in further.items()} if style == "trl" else further
    named = {name: value for name, value in as_given.items() if name in names}
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        given = {name: value for name, value in given.items() if name in names}
    found = {**given, **named, **arguments}
    for parameter in parameters:
        if parameter.kind in _NAMED and parameter.default is parameter.empty and parameter.name not in found:
            near = nearest(parameter.name, request.extra)
            hint = f"; did you mean {near!r}?" if near else ""
            columns = ", ".join(map(str, request.extra)) or "none"
            raise NoColumn(f"its argument {parameter.name} is no column of the row{hint} (columns: {columns})")
    return function(**found)


def _verl(request: GradeRequest) -> dict[str, Any]:
    extra = request.extra.get("extra_info")
    return {
        "data_source": request.source,
        "solution_str": request.text,
        "ground_truth": request.answer,
        "extra_info": dict(extra) if isinstance(extra, Mapping) else {},
    }


def as_messages(request: GradeRequest, conversational: bool | None) -> bool:
    """Whether TRL would give messages: as is said, else unless the row's own prompt is a text."""
    truth = request.extra.get("reward_model")
    return not (isinstance(truth, Mapping) and truth.get("text_prompt")) if conversational is None else conversational


def _trl(request: GradeRequest, conversational: bool | None) -> dict[str, Any]:
    """The columns of the row, `ground_truth` where it has none of that name; prompts and completions of one sample."""
    taken = ("prompt", "prompts", "completion", "completions", "completion_ids")
    columns = {name: [value] for name, value in request.extra.items() if name not in taken}
    prompt: object = [{"role": message.role, "content": message.content} for message in request.messages]
    completion: object = [{"role": "assistant", "content": request.text}]
    if not as_messages(request, conversational):
        prompt, completion = request.messages[-1].content if request.messages else "", request.text
    return {"ground_truth": [request.answer], **columns, "prompts": [prompt], "completions": [completion]}


def number_of(value: object) -> float | None:
    """A number as Python's, numpy's or torch's scalars are, and their arrays and tensors of one element; None for what
    is none. One that no float holds is infinite."""
    try:
        if hasattr(value, "item") and not isinstance(value, Sequence | Mapping):
            value = value.item()
        return float(value) if isinstance(value, bool | int | float) else None
    except OverflowError:
        return math.inf
    except (TypeError, ValueError, RuntimeError):  # several elements
        return None
