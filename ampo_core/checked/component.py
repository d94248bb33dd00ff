"""A component as the core holds it: what it is asked goes through `call.py`, and what it answers is looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ampo_core.checked.call import Asked, shown


class _Method:
    """A method of a component; calling it is a call of a plugin's code."""

    def __init__(self, asked: Asked, name: str, method: Any) -> None:
        self._asked, self._name, self.__func__ = asked, name, getattr(method, "__func__", None)

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._asked.ask(self._name, *given, **named)


class Checked:
    """Stands for a component, and is an instance of its class to whoever asks. Its methods are those of the component;
    a subclass looks at what those of its kind give."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.asked.component)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.asked.component, name)
        method = callable(found) and getattr(found, "__self__", None) is self.asked.component
        return _Method(self.asked, name, found) if method else found


def asked_of(component: object, kind: str) -> Asked:
    """How `component` is asked: a bare one, which no config has built, by the name of its class."""
    if isinstance(component, Checked):
        return component.asked
    return Asked(component, kind, str(getattr(component, "type", "")))


def memory_of(component: object, kind: str = "component") -> Any:
    """What a component with memory gives for a checkpoint. Raises PluginFault for what JSON cannot hold, or would give
    back as something else: a tuple as a list, the key 1 as "1"."""
    asked = asked_of(component, kind)
    state: object = asked.ask("state_dict")
    try:
        kept = json.loads(json.dumps(state, allow_nan=False))
        good = isinstance(state, dict)
    except (TypeError, ValueError, RecursionError):
        good = False
    if not good:
        raise asked.wrong("state_dict", shown(state), "a mapping in JSON types, its numbers finite")
    if state != kept:
        raise asked.wrong("state_dict", _changed(state, kept), "what is the same once JSON has kept it")
    return state


def _changed(state: Any, kept: Any, place: str = "") -> str:
    """The first difference between `state` and what JSON has `kept` of it, and where it stands."""
    at = f" at {place}" if place else ""
    if isinstance(state, dict) and isinstance(kept, dict):
        if lost := [key for key in state if key not in kept]:
            return f"the key {shown(lost[0])}{at}"
        pairs = [(key, state[key], kept[key]) for key in state]
    elif isinstance(state, list) and isinstance(kept, list):
        pairs = [(i, mine, other) for i, (mine, other) in enumerate(zip(state, kept, strict=True))]
    else:
        return f"{shown(state)}{at}"
    key, mine, other = next((pair for pair in pairs if pair[1] != pair[2]), (place, state, None))
    return _changed(mine, other, f"{place}.{key}".lstrip("."))


Wrapper = Callable[[Asked], Checked]
