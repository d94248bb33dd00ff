"""Calls of a plugin's code: whatever it raises becomes an error that names the component, its method and its line.

What is a fault of the core, or an interruption by a signal, passes as it is.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from ampo_registry.errors import AmpoError, ConfigError, DataError, PluginError, RunError
from ampo_registry.faults import describe, is_in, is_interruption, own_paths, place_of
from ampo_registry.specs import ComponentSpec

_CORE, _HERE = ((str(Path(__file__).resolve().parents[depth]),) for depth in (1, 0))
_SHOWN = 80
T = TypeVar("T")
_question: ContextVar[str] = ContextVar("question", default="")


class PluginFault(PluginError):
    """A plugin's fault that is told with the plugin's name already."""


@contextmanager
def about(question: str) -> Iterator[None]:
    """While this lasts, faults name the question with this uid."""
    token = _question.set(question)
    try:
        yield
    finally:
        _question.reset(token)


@dataclass(frozen=True, slots=True)
class Asked:
    """A component as it is asked, and as errors name it: its kind, its name in YAML, and where in the config it stands
    if the kind does not tell."""

    component: Any
    kind: str
    name: str = ""
    place: str = ""

    @classmethod
    def of(cls, spec: ComponentSpec, component: object = None, place: str = "") -> Self:
        """What was built of `spec`, or `spec` itself."""
        name = str(getattr(spec, "type", ""))
        return cls(spec if component is None else component, spec.kind, name, "" if place == spec.kind else place)

    def ask(self, method: str, /, *given: Any, **named: Any) -> Any:
        """What `method` returns. Raises as `within` does."""
        return self.within(method, lambda: getattr(self.component, method)(*given, **named))

    def read(self, attribute: str) -> Any:
        """What `attribute`, a property or a class variable, is. Raises as `within` does."""
        return self.within(attribute, lambda: getattr(self.component, attribute))

    def check(self, *given: Any) -> None:
        """Ask its `check`: a ConfigError or DataError, which it is there to raise, passes as it is, and anything else
        is raised as by `within`."""

        def act() -> AmpoError | None:
            try:
                self.component.check(*given)
            except (ConfigError, DataError) as error:
                if isinstance(error, PluginError):
                    raise
                return error
            return None

        if (refusal := self.within("check", act)) is not None:
            raise refusal

    def within(self, method: str, act: Callable[[], T]) -> T:
        """What `act` returns, which runs code of `method`. Raises PluginFault for what that raises; errors for a person
        keep their type, and get the component's name if they have not said it."""
        try:
            return act()
        except BaseException as error:
            if (fault := self._fault(method, error)) is error:
                raise
            raise fault from error

    def wrong(self, method: str, found: str, expected: str) -> PluginFault:
        """The fault of a `method` that gave what it must not."""
        return PluginFault(f"{self.label(method, self._defined(method))}gave {found}; expected {expected}")

    def label(self, method: str, place: str = "") -> str:
        """The words that a fault of `method` begins with; `place` is file:line of the plugin."""
        who = " ".join(filter(None, (self.kind, self.name, self.place and f"at {self.place}")))
        line = f", {place}" if place else ""
        question = f"question {_question.get()[:12]}: " if _question.get() else ""
        return f"{who} ({self._class.__name__}.{method}{line}): {question}"

    @property
    def _class(self) -> type:
        return self.component if isinstance(self.component, type) else type(self.component)

    def _fault(self, method: str, error: BaseException) -> BaseException:
        """What is to be raised for `error`: itself, if it is no fault of this component or is told already."""
        if isinstance(error, PluginFault) or is_interruption(error):
            return error
        own = own_paths(self._class)
        label = self.label(method, (place_of(error, own) if own else "") or self._defined(method))
        if not isinstance(error, AmpoError):
            return PluginFault(f"{label}{_missing(self.component, method) or describe(error)}")
        raiser = _raiser(error, own)
        if raiser == "core" or (raiser == "plugin" and self._says_who(str(error))):
            return error
        kinds = (DataError, PluginError, ConfigError, RunError)
        kind = next((kind for kind in kinds if isinstance(error, kind)), None)
        return error if kind is None else (PluginFault if kind is PluginError else kind)(f"{label}{error}")

    def _says_who(self, text: str) -> bool:
        """True if `text` begins with the component's name or class, as an error for a person may."""
        names = "|".join(re.escape(name) for name in (f"{self.kind} {self.name}", self._class.__name__))
        return re.match(rf"(?:{names})(?!\w)", text) is not None

    def _defined(self, method: str) -> str:
        """file:line of `method`."""
        code = getattr(inspect.unwrap(getattr(self._class, method, len)), "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def shown(value: object) -> str:
    """`value` as faults show it: type and text, short; never an error of its own."""
    try:
        text = repr(value)
    except BaseException as error:
        if is_interruption(error):
            raise
        text = "what cannot be shown"
    short = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
    return short if value is None or isinstance(value, bool | int | float | str) else f"{type(value).__name__} {short}"


def _raiser(error: AmpoError, own: tuple[str, ...]) -> str:
    """Whose code raised `error`: the plugin's, the core's, which then says itself what is wrong, or the registry's."""
    trace, last = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        whose = "plugin" if is_in(file, own) else "core" if is_in(file, _CORE) and not is_in(file, _HERE) else ""
        last = whose or ("registry" if "ampo_registry" in file else last)
        trace = trace.tb_next
    return last


def _missing(component: object, method: str) -> str:
    """What to say where `component` has no such method."""
    nothing = inspect.getattr_static(component, method, None) is None and not hasattr(type(component), "__getattr__")
    return f"it has no {method}" if nothing else ""
