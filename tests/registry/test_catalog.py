"""The catalog: names and options are resolved, faults are said in the author's or the user's terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pytest
from ampo_registry import (
    AggregatorSpec,
    BuildContext,
    ComponentSpec,
    PluginError,
    RewardSpec,
    RolloutSpec,
    ScoringSelectorSpec,
    SelectionContext,
    SelectionRequest,
    SelectorSpec,
    TaskSpec,
    TriggerSpec,
)
from ampo_registry.catalog import BrokenPlugin, Catalog, ComponentError
from ampo_registry.checks import KINDS, check_spec
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, WrapValidator


class Newest(ScoringSelectorSpec):
    """Prefer the newest.

    More about it.
    """

    type: Literal["newest"] = "newest"
    window: int = 3

    def score(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[float]]:
        return [[float(i) for i, _ in enumerate(request.candidates)] for request in requests]


@pytest.fixture
def catalog() -> Catalog:
    catalog = Catalog()
    catalog.add(Newest, "their-dist", "1.2")
    return catalog


@pytest.mark.parametrize("value", ["newest", {"type": "newest"}, Newest()])
def test_name_mapping_and_spec_resolve_alike(catalog: Catalog, value: object) -> None:
    assert catalog.resolve("selector", value) == Newest()


def test_options_are_set(catalog: Catalog) -> None:
    value = {"type": "newest", "window": 5, "score_rounding": {"decimals": 2}}
    spec: Any = catalog.resolve("selector", value)
    assert (spec.window, spec.score_rounding.decimals) == (5, 2)
    assert value == {"type": "newest", "window": 5, "score_rounding": {"decimals": 2}}


def test_entry_says_what_it_is(catalog: Catalog) -> None:
    [entry] = catalog.entries("selector")
    assert entry.summary == "Prefer the newest."
    assert entry.options == ("score_rounding", "ties", "window")
    assert (entry.distribution, entry.version) == ("their-dist", "1.2")
    assert catalog.names("trigger") == ()
    assert catalog.entries() == (entry,)


@pytest.mark.parametrize(
    ("value", "message", "location"),
    [
        ("newes", "unknown selector 'newes'; did you mean 'newest'?\nallowed: newest", ()),
        ({"type": "newes"}, "unknown selector 'newes'", ("type",)),
        ("zzz", "unknown selector 'zzz'\nallowed: newest", ()),
        ({"type": 3}, "`type` must be the name of a selector, found 3", ("type",)),
        ({"window": 3}, "a selector given as a mapping needs `type`; allowed: newest", ()),
        (["newest"], "a selector is a name or {type: name, options}, found ['newest']", ()),
        (None, "a selector is a name or {type: name, options}, found None", ()),
    ],
)
def test_faults_of_a_value(catalog: Catalog, value: object, message: str, location: tuple[str, ...]) -> None:
    with pytest.raises(ComponentError) as caught:
        catalog.resolve("selector", value)
    assert message in str(caught.value)
    assert caught.value.location == location
    assert caught.value.exit_code == 2


def test_spec_of_another_kind_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ComponentError, match="expected a trigger, found the selector Newest"):
        catalog.resolve("trigger", Newest())


def test_broken_plugins_are_listed_with_an_unknown_name(catalog: Catalog) -> None:
    catalog.add_broken(BrokenPlugin("oldest", "old-dist", "0.1", "cannot be imported: it is too old", "old.py:3"))
    with pytest.raises(ComponentError, match=r"oldest of old-dist 0.1: cannot be imported: it is too old \(old.py:3\)"):
        catalog.resolve("selector", "oldest")


def test_option_errors_keep_their_place_inside_a_config(catalog: Catalog) -> None:
    def resolve(value: Any, _: Any, info: ValidationInfo) -> ComponentSpec:
        return catalog.resolve("selector", value)

    class Guidance(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        selector: Annotated[SelectorSpec, WrapValidator(resolve)]

    with pytest.raises(ValidationError) as caught:
        Guidance.model_validate({"selector": {"type": "newest", "windw": 1, "window": "x"}})
    errors = {error["loc"]: error["type"] for error in caught.value.errors()}
    assert errors == {("selector", "window"): "int_parsing", ("selector", "windw"): "extra_forbidden"}
    with pytest.raises(ValidationError) as caught:
        Guidance.model_validate({"selector": "newes"})
    [error] = caught.value.errors()
    assert error["loc"] == ("selector",)
    assert isinstance(error["ctx"]["error"], ComponentError)


def test_second_claim_blocks_the_name(catalog: Catalog) -> None:
    with pytest.raises(PluginError, match=r"claimed by their-dist 1.2 .* and by other-dist 3.0"):
        catalog.add(Newest, "other-dist", "3.0")
    with pytest.raises(ComponentError, match=r"other-dist 3\.0"):
        catalog.resolve("selector", "newest")


def test_unknown_kind_is_refused(catalog: Catalog) -> None:
    with pytest.raises(PluginError, match="unknown kind of component 'selectors'"):
        catalog.names("selectors")


def test_kinds_are_those_of_the_contract() -> None:
    kinds = "selector trigger aggregator shaping teacher_pool reward advantage rollout tracker task"
    kinds += " intervention loss schedule judge"
    assert set(KINDS) == set(kinds.split())


class Untyped(TriggerSpec):
    def fires(self, group: Any, context: Any) -> bool:
        return True


class NotLiteral(Untyped):
    type: str = "not_literal"


class BadName(Untyped):
    type: Literal["Bad-Name"] = "Bad-Name"


class OtherDefault(Untyped):
    type: Literal["one", "other"] = "one"


class Misspelt(TriggerSpec):
    type: Literal["misspelt"] = "misspelt"

    def fire(self, group: Any, context: Any) -> bool:
        return True


class HalfReward(RewardSpec):
    type: Literal["half"] = "half"

    def grade(self, requests: Any) -> Any:
        return []


class NoEngine(RolloutSpec):
    type: Literal["no_engine"] = "no_engine"


class Kindless(ComponentSpec):
    type: Literal["kindless"] = "kindless"


class OwnKind(ComponentSpec):
    kind = "gizmo"
    behaviour = ()
    type: Literal["own_kind"] = "own_kind"


class Mutable(Untyped):
    model_config = ConfigDict(frozen=False)
    type: Literal["mutable"] = "mutable"


class Open(Untyped):
    model_config = ConfigDict(extra="allow")
    type: Literal["open"] = "open"


class Undefined(Untyped):
    type: Literal["undefined"] = "undefined"
    option: NoSuchType  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Untyped, "Untyped has no name: add a line like"),
        (NotLiteral, 'NotLiteral: write its name as  type: Literal["not_literal"] = "not_literal"'),
        (BadName, "BadName: the name 'Bad-Name' must be lower case letters, digits and _"),
        (OtherDefault, 'OtherDefault: write its name as  type: Literal["one"]'),
        (Misspelt, "Misspelt, a trigger, does not define fires(), nor build(); is fire misspelt?"),
        (HalfReward, "HalfReward, a reward, does not define check_truth(), nor build()"),
        (NoEngine, "NoEngine, a rollout, does not define build()"),
        (Kindless, "Kindless has no kind: it must subclass one of"),
        (OwnKind, "OwnKind has no kind: it must subclass one of"),
        (Mutable, "Mutable: model_config must keep frozen=True"),
        (Open, "Open: model_config must keep frozen=True"),
        (Undefined, "Undefined: the type 'NoSuchType' of an option is not defined"),
        (TriggerSpec, "TriggerSpec is a base; subclass it"),
        (ScoringSelectorSpec, "ScoringSelectorSpec is a base; subclass it"),
        (Newest(), "is not a spec class"),
        (int, "is not a spec class"),
    ],
    ids=str,
)
def test_faults_of_a_spec_class_are_said(spec: object, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        check_spec(spec)
    assert message in str(caught.value)


class FreeSelector(ScoringSelectorSpec):
    type: Literal["free"] = "free"

    def select(self, requests: Any, context: Any) -> Any:
        return [[] for _ in requests]


class Built(AggregatorSpec):
    type: Literal["built"] = "built"

    def build(self, context: BuildContext) -> Any:
        return object()


class World(TaskSpec):
    type: Literal["world"] = "world"

    def make(self, seed: int) -> Any:
        return None


@pytest.mark.parametrize("spec", [Newest, FreeSelector, Built, World], ids=str)
def test_complete_spec_classes_are_accepted(spec: type[ComponentSpec]) -> None:
    assert check_spec(spec) == (spec.kind, spec.model_fields["type"].default)
