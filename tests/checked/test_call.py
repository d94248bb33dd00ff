"""Whatever a plugin's method raises becomes an error that names the component, its method and its line."""

from __future__ import annotations

import re
import signal
from typing import Any, Literal

import pytest
from ampo_registry import ConfigError, DataError, PluginError, RunError, TriggerSpec
from ampo_registry.faults import Signalled
from ampo_registry.tokens import TokenIds

from ampo_core.checked.call import Asked, PluginFault, about, shown
from ampo_core.config.nodes import Place, Problem, raise_problems

HERE = re.escape(__file__)


class Mine(TriggerSpec):
    """Does what it is told to."""

    type: Literal["mine"] = "mine"

    def fires(self, group: Any, context: Any) -> bool:
        return bool(group())

    @property
    def broken(self) -> str:
        raise OSError("no such thing")


def ask(act: Any) -> None:
    Asked.of(Mine()).ask("fires", act, None)


def raising(error: BaseException) -> Any:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (SystemExit(0), "SystemExit: 0"),
        (GeneratorExit(), "GeneratorExit"),
        (StopIteration(), "StopIteration"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (PluginError("my table is empty"), "my table is empty"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_it_raises_is_told_with_its_name_and_line(error: BaseException, text: str) -> None:
    with pytest.raises(PluginFault, match=rf"^trigger mine \(Mine\.fires, {HERE}:\d+\): {re.escape(text)}$") as caught:
        ask(raising(error))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("kind", [ConfigError, DataError, RunError])
def test_errors_for_a_person_keep_their_type_and_get_a_name_once(kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^trigger mine \(Mine\.fires, .*\): row 3 is empty$") as caught:
        ask(raising(kind("row 3 is empty")))
    assert type(caught.value) is kind
    for told in ("Mine needs a table", "Mine.fires: row 3 is empty", "trigger mine: row 3 is empty"):
        with pytest.raises(kind, match=f"^{re.escape(told)}$"):
            ask(raising(kind(told)))
    for untold in ("Mines have no table", "nothing for Mine here", "this is not triggered in Mineral"):
        with pytest.raises(kind, match=rf"^trigger mine \(Mine\.fires, .*\): {untold}$"):
            ask(raising(kind(untold)))


def test_what_is_told_already_and_what_the_core_says_itself_pass() -> None:
    fault = PluginFault("scorer: told")
    with pytest.raises(PluginFault) as caught:
        ask(raising(fault))
    assert caught.value is fault
    with pytest.raises(ConfigError, match=r"^the core says it: $"):
        ask(lambda: raise_problems([Problem(Place("the core says it"), (), "")]))
    with pytest.raises(PluginFault, match=r"Mine\.fires, .*: TokenIds: number 1 of 1 is 'a'"):
        ask(lambda: TokenIds(["a"]))  # type: ignore[list-item]


def test_a_signal_is_an_interruption_and_a_keyboard_interrupt_of_its_own_is_not() -> None:
    with pytest.raises(Signalled):
        ask(raising(Signalled()))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):  # Python's own handler of Ctrl-C: nobody could tell
            ask(raising(KeyboardInterrupt()))
        signal.signal(signal.SIGINT, lambda number, frame: None)
        with pytest.raises(PluginFault, match="KeyboardInterrupt"):
            ask(raising(KeyboardInterrupt()))
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_method_that_is_not_there_and_a_property_that_raises_are_named() -> None:
    with pytest.raises(PluginFault, match=r"^selector lost at more\.selector \(object\.select\): it has no select$"):
        Asked(object(), "selector", "lost", "more.selector").ask("select")
    with pytest.raises(PluginFault, match=rf"^trigger mine \(Mine\.broken, {HERE}:\d+\): OSError: no such thing$"):
        Asked.of(Mine()).read("broken")


def test_a_wrong_answer_names_the_question_and_where_the_method_is_defined() -> None:
    fault = Asked.of(Mine()).wrong("fires", shown("no"), "True or False")
    assert re.fullmatch(rf"trigger mine \(Mine\.fires, {HERE}:\d+\): gave 'no'; expected True or False", str(fault))
    with about("0123456789abcdef"):
        assert "): question 0123456789ab: gave" in str(Asked.of(Mine()).wrong("fires", "None", "True or False"))
    assert "): gave" in str(Asked.of(Mine()).wrong("fires", "None", "True or False"))


def test_what_is_shown_is_short_and_never_fails() -> None:
    class Odd:
        """Cannot be shown."""

        def __repr__(self) -> str:
            raise ValueError

    assert shown([0] * 100).startswith("list [0, 0")
    assert len(shown([0] * 100)) < 90
    assert shown(Odd()) == "Odd what cannot be shown"


def test_a_check_may_refuse_and_whatever_else_it_raises_is_a_fault() -> None:
    class Checking:
        """Raises what it is given."""

        def check(self, error: BaseException | None) -> None:
            if error is not None:
                raise error

    asked = Asked(Checking(), "judge", "odd")
    asked.check(None)
    for kind in (ConfigError, DataError):
        with pytest.raises(kind, match=r"^judges\.base\.path: there is nothing$"):
            asked.check(kind("judges.base.path: there is nothing"))
    for error in (PluginError("no"), KeyError("no"), SystemExit(0)):
        with pytest.raises(PluginFault, match=r"^judge odd \(Checking\.check, "):
            asked.check(error)
