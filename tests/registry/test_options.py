"""Options that the resolved config does not keep make a spec broken, with the reason."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ampo_registry.discovery import discover

SPEC = '''
import sys
from typing import Annotated, Any, Callable, Literal
from ampo_registry import ComponentField, ComponentSpec, ShapingSpec, TriggerSpec, hookimpl
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

def end(value):
    sys.exit(0)

class Mine(TriggerSpec):
    """Mine."""
    type: Literal["mine"] = "mine"
    OPTION

    def fires(self, group, context):
        return True

@hookimpl
def ampo_specs():
    return [Mine]
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    path, modules = list(sys.path), set(sys.modules)
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    yield tmp_path / "options_plugin.py"
    signal.signal(signal.SIGINT, before)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name == "options_plugin":
            del sys.modules[name]


def found(plugin: Path, option: str) -> tuple[tuple[str, ...], str]:
    plugin.write_text(SPEC.replace("OPTION", option))
    plugins = discover([plugin])
    return plugins.catalog.names("trigger"), "\n".join(map(str, plugins.broken))


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("x: float = float('nan')", "the default of the option x is nan, which the resolved config cannot hold"),
        ("x: list[float] = [1.0, float('inf')]", "the default of the option x is inf"),
        ("x: float = Field(1.0, alias='y')", "the option x has the alias 'y'"),
        ("x: float = Field(1.0, validation_alias='y')", "the option x has the alias 'y'"),
        ("x: float = Field(1.0, serialization_alias='y')", "the option x has the alias 'y'"),
        ("x: Any = len", "the default of the option x is a function or class"),
        ("x: bytes = b'ab'", "the default of the option x is bytes (b'ab')"),
        ("x: Any = Field(default_factory=object)", "Mine: its options cannot be written into the resolved config"),
        ("x: str = 3", "Mine: the option x = 3 stands as 3 in the resolved config, and is refused when it is read"),
        (
            "x: Annotated[int, AfterValidator(lambda x: x + 1)] = 1",
            "Mine: the resolved config does not keep the option x: it is 1, and is read again as 2",
        ),
        (
            "x: Annotated[float, PlainSerializer(lambda x: 1 / 0)] = 1.0",
            "Mine: its options cannot be written into the resolved config: PydanticSerializationError",
        ),
        (
            "x: Annotated[int, AfterValidator(end)] = Field(1, validate_default=True)",
            "Mine: its default options are refused: SystemExit: 0",
        ),
    ],
    ids=lambda value: value.replace(" ", "") if value.startswith("x:") else "",
)
def test_a_spec_whose_options_do_not_survive_is_broken(plugin: Path, option: str, reason: str) -> None:
    names, broken = found(plugin, option)
    assert "mine" not in names
    assert "adaptive" in names
    assert reason in broken
    assert "options_plugin" in broken


@pytest.mark.parametrize(
    "option",
    [
        "x: float",
        "x: tuple[int, ...] = (1, 2)",
        "x: dict[int, str] = {1: 'a'}",
        "x: Literal['a', 'b'] | None = None",
        "x: Annotated[ShapingSpec, ComponentField('shaping')] = Field(default='ratio', validate_default=True)",
        "x: Annotated[ShapingSpec, ComponentField('shaping')] = Field(default='not_here', validate_default=True)",
    ],
)
def test_others_stay(plugin: Path, option: str) -> None:
    names, broken = found(plugin, option)
    assert "mine" in names
    assert not broken


@pytest.mark.parametrize(
    ("given", "reason"),
    [("3", "3 is not a spec class"), ("Mine", ""), ("Mine()", "is not a spec class"), ("'mine'", "'mine' is not a")],
)
def test_one_spec_without_a_list_is_taken_and_other_things_are_named(plugin: Path, given: str, reason: str) -> None:
    plugin.write_text(SPEC.replace("[Mine]", given).replace("OPTION", ""))
    plugins = discover([plugin])
    assert ("mine" in plugins.catalog.names("trigger")) == (not reason)
    assert reason in "\n".join(map(str, plugins.broken))
