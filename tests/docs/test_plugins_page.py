"""docs/plugins.md says what the registry does: every hook, kind, method, option, field, error and check."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import ampo_registry
import ampo_registry.testing
import pytest
import yaml
from ampo_registry import hooks, protocols
from ampo_registry.checks import KINDS
from ampo_registry.discovery import HOOKS, discover
from ampo_registry.seams import NEEDS
from ampo_registry.specs import ComponentSpec
from pydantic import BaseModel

PAGE = Path(__file__).parents[2].joinpath("docs/plugins.md").read_text(encoding="utf-8")
FLAT = " ".join(PAGE.split()).replace(" \\| ", " | ")
PUBLIC = [getattr(ampo_registry, name) for name in ampo_registry.__all__]
CLASSES = [item for item in PUBLIC if inspect.isclass(item)]
SPECS = [item for item in CLASSES if issubclass(item, ComponentSpec)]
RECORDS = [item for item in CLASSES if dataclasses.is_dataclass(item)]
PROTOCOLS = [item for item in CLASSES if getattr(item, "_is_protocol", False)]
EXAMPLES = re.findall(r"<!-- save: (\w+\.py) -->\n```python\n(.*?)```", PAGE, re.S)
ERRORS = [item for item in CLASSES if issubclass(item, ampo_registry.AmpoError)]


def section(title: str) -> str:
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", PAGE, re.M | re.S)
    assert found, f"no section {title}"
    return found[2]


def signature(function: Any) -> str:
    return str(inspect.signature(function)).replace("'", "")


def shown(cls: type, name: str, function: Any) -> str:
    """A method as the page shows it; a property says so, for written as a method it would always be true."""
    return f"{'@property ' if isinstance(vars(cls).get(name), property) else ''}def {name}{signature(function)}"


def own_methods(cls: type) -> dict[str, Any]:
    found = {name: getattr(item, "__func__", item) for name, item in vars(cls).items() if name[0] != "_"}
    found = {name: item.fget if isinstance(item, property) and cls in SPECS else item for name, item in found.items()}
    return {name: item for name, item in found.items() if inspect.isfunction(item)}


def row(name: str, text: str = PAGE) -> list[str]:
    """The cells of the table row that begins with `name` in backticks."""
    found = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(found) == 1, f"{len(found)} table rows for {name}"
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", found[0])[1:-1]]


def test_every_hook_is_there_with_its_signature():
    assert re.findall(r"^\| `(ampo_\w+)\(", section("Hooks"), re.M) == list(HOOKS)
    for name in HOOKS:
        assert f"`{name}{signature(getattr(hooks, name))}`" in FLAT


def test_every_kind_has_its_section_and_no_more():
    sections = re.findall(r"^### (\w+)$", PAGE, re.M)
    assert sections == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_methods_of_a_kind(kind):
    text, base = section(kind), KINDS[kind]
    assert f"`{base.__name__}`" in text
    flat = " ".join(text.split())
    for name, function in own_methods(base).items():
        if name != "build" or "build" in base.behaviour:
            assert shown(base, name, function) in flat


def test_no_method_is_shown_that_is_not_there():
    classes = SPECS + PROTOCOLS + RECORDS
    known = {shown(cls, name, item) for cls in classes for name, item in own_methods(cls).items()}
    blocks = re.findall(r"(?<!-->)\n```python\n(.*?)```", PAGE, re.S)
    found = re.findall(r"^ *((?:@property\n *)?def (?!ampo_|test_).*?)$", "\n".join(blocks).replace("'", ""), re.M)
    assert found
    assert {" ".join(item.split()) for item in found} <= known


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_options_of_a_spec_base(spec):
    assert f"`{spec.__name__}`" in PAGE or spec is ComponentSpec
    if spec is ComponentSpec:
        return
    text = section(spec.kind)
    for name, field in spec.model_fields.items():
        assert yaml.safe_load(row(name, text)[1].strip("`")) == field.default


def test_scoring_selector_methods():
    shown = " ".join(section("selector").split())
    for name, function in own_methods(ampo_registry.ScoringSelectorSpec).items():
        assert f"def {name}{signature(function)}" in shown


def test_methods_of_every_spec():
    assert "`def unavailable(self) -> str | None`" in FLAT
    assert "`def build(self, context: BuildContext)`" in FLAT
    assert "`@property def judges(self) -> frozenset[str]`" in FLAT


@pytest.mark.parametrize("option", [item for item in CLASSES if issubclass(item, BaseModel) and item not in SPECS])
def test_nested_options(option):
    assert f"`{option.__name__}`" in PAGE
    for name in option.model_fields:
        assert re.search(rf"[{{ ]{name}[:,]", PAGE)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_fields_of_a_record(record):
    fields = [field.name for field in dataclasses.fields(record)]
    assert row(record.__name__)[1] == ", ".join(f"`{name}`" for name in fields)
    properties = [name for name, item in vars(record).items() if isinstance(item, property)]
    assert all(f"`{name}`" in row(record.__name__)[2] for name in properties)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_methods_of_a_record(record):
    assert [name for name in own_methods(record) if not re.search(rf"\b{name}\(", PAGE)] == []


@pytest.mark.parametrize("record", [ampo_registry.GradeRequest, ampo_registry.Grade], ids=["request", "grade"])
def test_defaults_of_what_a_reward_gets_and_gives(record):
    def shown(field):
        if field.default is not dataclasses.MISSING:
            return f"{field.name}={field.default!r}"
        return (
            field.name if field.default_factory is dataclasses.MISSING else f"{field.name}={field.default_factory()!r}"
        )

    assert f"\n{record.__name__}({', '.join(map(shown, dataclasses.fields(record)))})\n" in section("reward")


def call(name: str) -> str:
    """A check with its arguments and their defaults; a function by its name."""
    found = inspect.signature(getattr(ampo_registry.testing, name))
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty, default=Shown(parameter.default))
        if parameter.default is not inspect.Parameter.empty
        else parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in found.parameters.values()
    ]
    return f"{name}{found.replace(parameters=plain, return_annotation=inspect.Signature.empty)}"


@dataclasses.dataclass(repr=False)
class Shown:
    value: Any

    def __repr__(self) -> str:
        return self.value.__name__ if inspect.isfunction(self.value) else repr(self.value)


def test_arguments_of_the_check_of_rewards():
    assert f"\n{call('check_reward')}\n" in section("reward")


def test_what_a_loss_may_need():
    assert re.findall(r"^\| `(\w+)` \| `view\.", section("loss"), re.M) == [*NEEDS]
    assert "`zero_without_advantage`" in section("loss")


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.__name__)
def test_methods_of_a_protocol(protocol):
    block = re.search(rf"class {protocol.__name__}\(Protocol\):\n((?:    .*\n)+)", PAGE)
    assert block, protocol.__name__
    assert [line.strip() for line in block[1].splitlines()] == [
        f"def {name}{signature(item)}" for name, item in own_methods(protocol).items()
    ]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_errors_have_their_exit_code(error):
    assert row(error.__name__)[1] == str(error.exit_code)


def test_nothing_public_is_missing():
    missing = [name for name in ampo_registry.__all__ if not re.search(rf"\b{name}\b", PAGE)]
    assert not missing
    assert protocols.JsonValue
    assert not [
        name for name in ampo_registry.testing.__all__ if not re.search(rf"`{name}\b", section("Conformance kit"))
    ]


@pytest.mark.parametrize("name", [name for name in ampo_registry.testing.__all__ if name.startswith("check_")])
def test_arguments_of_a_check(name):
    _, *further = inspect.signature(getattr(ampo_registry.testing, name)).parameters
    assert [option for option in further if f"`{option}`" not in row(call(name), section("Conformance kit"))[1]] == []


@pytest.mark.parametrize("kind", KINDS)
def test_built_in_components_are_listed(kind):
    entries = [entry for entry in discover().catalog.entries(kind) if entry.distribution == "ampo-rl"]
    listed = re.search(r"^Built in: (.*)$", section(kind), re.M)
    assert listed
    assert entries
    assert [entry.name for entry in entries if f"`{entry.name}`" not in listed[1]] == []


def test_the_observer_example_runs(tmp_path):
    code = re.search(r"```python\n(from pathlib.*?)```", section("Hooks"), re.S)
    assert code
    file = tmp_path / "write_rewards_example.py"
    file.write_text(code[1], encoding="utf-8")
    plugins = discover([file])
    context = ampo_registry.RunContext("demo", tmp_path, "train", 0, {})
    plugins.report = pytest.fail
    report = ampo_registry.StepReport(3, {"reward/mean": 0.5})
    found = [given for _, given in plugins.notify("ampo_step_finished", report=report, context=context)]
    assert found == [{"example/questions": 0}]
    assert (tmp_path / "rewards.txt").read_text() == "3 0.5\n"


@pytest.mark.parametrize(("name", "code"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_a_component_of_the_page_keeps_its_contract(name, code, tmp_path):
    file = tmp_path / name
    file.write_text(code, encoding="utf-8")
    plugins = discover([file])
    (entry,) = [entry for entry in plugins.catalog.entries() if entry.name == file.stem]
    getattr(ampo_registry.testing, f"check_{entry.kind}")(plugins.catalog.resolve(entry.kind, entry.name))
