"""Components inside components, from a third party's file to the resolved config and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ampo_registry import BuildContext, ConfigError, PluginError, Stateful
from ampo_registry.discovery import Plugins, discover
from ampo_registry.step import StepContext
from pydantic import ValidationError

from ampo_core.cli import main as cli
from ampo_core.config.load import load_config
from ampo_core.config.schema import config_schema
from ampo_core.loop.objective import ObjectiveParts

PLUGIN = '''
"""A third party's loss that holds another one, some more, and a number that may change over the run."""

from typing import Annotated, Literal

from ampo_registry import ComponentField, LossSpec, ScheduledField, ScheduleSpec, hookimpl
from pydantic import Field

Held = Annotated[LossSpec, ComponentField("loss")]


class Blend(LossSpec):
    """A loss and others, by a share that may change over the run."""

    type: Literal["blend"] = "blend"
    loss: Held = Field(default="nll", validate_default=True, description="what is blended in")
    more: list[Held] = Field(default=[], description="further losses")
    share: Annotated[float | ScheduleSpec, ScheduledField(0.0, 1.0)] = Field(default=0.5, description="how much of it")

    @property
    def needs(self):
        return self.loss.needs

    def build(self, context):
        share, loss = context.build(self.share, "share"), context.build(self.loss)
        more = [context.build(item, f"more.{i}") for i, item in enumerate(self.more)]
        return BlendLoss(share, loss, more)


class BlendLoss:
    def __init__(self, share, loss, more):
        self.share, self.loss, self.more = share, loss, more

    def token_losses(self, view):
        return sum(part.token_losses(view) for part in (self.loss, *self.more))


class Step(ScheduleSpec):
    """Counts the steps that it has seen; keeps that."""

    type: Literal["counting"] = "counting"
    fault: str = ""

    def range(self):
        if self.fault == "raises":
            raise KeyError("limits")
        return {"text": ("a", "b"), "one": (1.0,), "wide": (0.0, 7.0)}.get(self.fault)

    def unavailable(self):
        return "the counter is not installed" if self.fault == "missing" else None

    def warnings(self):
        return [("fault", "it counts slowly")] if self.fault == "slow" else []

    def build(self, context):
        return Counter()


class Counter:
    def __init__(self):
        self.seen = 0

    def value(self, step, steps, metrics):
        self.seen = step
        return 1 / (1 + step)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


@hookimpl
def ampo_specs():
    return [Blend, Step]
'''
Load = Callable[..., Any]
LINEAR = "{type: linear, start: 1.0, end: 0.5}"


@pytest.fixture(scope="module")
def blending(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "blending.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def third(blending: Path) -> Plugins:
    return discover([blending])


@pytest.fixture
def load(folder: Path, third: Plugins) -> Load:
    """load(text, *overrides, parent=...): a config that extends base.yaml, or `parent`, which does."""

    def load_text(text: str = "", *overrides: str, parent: str | None = None) -> Any:
        Path("parent.yaml").write_text(f"extends: base.yaml\n{parent or ''}", encoding="utf-8")
        Path("c.yaml").write_text(f"extends: parent.yaml\n{text}", encoding="utf-8")
        return load_config("c.yaml", overrides, third)

    return load_text


def on_policy(value: str, key: str = "weight") -> str:
    return f"objective: {{on_policy: {{{key}: {value}}}}}\n"


BLEND = (
    f"{{type: blend, loss: {{type: shaped, shaping: {{type: power, exponent: 0.5}}}}, more: [nll], share: {LINEAR}}}"
)


def test_a_held_component_is_resolved_and_written_whole_and_read_again(load: Load, third: Plugins) -> None:
    loaded = load(on_policy(BLEND, "loss"))
    found = loaded.data["objective"]["on_policy"]["loss"]
    assert found["loss"] == {
        "type": "shaped",
        "shaping": {"type": "power", "exponent": 0.5},
        "clip": None,
        "behaviour_policy": "one",
    }
    assert found["more"] == [{"type": "nll"}]
    assert found["share"] == {"type": "linear", "start": 1.0, "end": 0.5, "steps": None, "delay": 0}
    Path("again.yaml").write_text(loaded.yaml, encoding="utf-8")
    again = load_config("again.yaml", (), third)
    assert (again.data, again.job.objective) == (loaded.data, loaded.job.objective)


def test_the_schema_and_the_listing_show_what_may_stand_there(
    third: Plugins, blending: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import jsonschema

    schema = config_schema(third.catalog)
    check = jsonschema.Draft202012Validator({"$defs": schema["$defs"], "$ref": "#/$defs/component-loss"})
    good = {"type": "blend", "loss": {"type": "shaped", "shaping": "ratio"}, "more": ["nll"], "share": 0.2}
    assert check.is_valid(good)
    for wrong in (
        {"loss": {"type": "shaped", "shaping": "rati"}},
        {"more": ["nl"]},
        {"share": 1.5},
        {"share": {"type": "linear", "start": 1.0}},
    ):
        assert not check.is_valid({**good, **wrong})
    assert cli.main(["--plugin", str(blending), "--plugins", "blend"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "a loss (blend, cispo, clip, gspo, nll, policy_gradient, shaped)" in shown
    assert "a schedule (cosine, counting, linear, piecewise)" in shown


NESTED = "objective:\n  on_policy:\n    loss:\n      type: blend\n      "
ERRORS = {
    "an option": (
        f"{NESTED}loss:\n        type: shaped\n        shaping:\n          type: ratio\n          gama: 0.2\n",
        "c.yaml:10: objective.on_policy.loss.loss.shaping.gama: no such key; did you mean gamma?",
    ),
    "a name": (
        f"{NESTED}loss:\n        type: shaped\n        shaping: rati\n",
        "c.yaml:8: objective.on_policy.loss.loss.shaping: no shaping is named 'rati'; did you mean ratio?",
    ),
    "a type": (
        f"{NESTED}share:\n        type: lineer\n",
        "c.yaml:7: objective.on_policy.loss.share.type: no schedule is named 'lineer'; did you mean linear? "
        "(allowed: cosine, counting, linear, piecewise)",
    ),
    "an item": (
        f"{NESTED}more:\n      - nll\n      - {{type: clip, low: x}}\n",
        'c.yaml:8: objective.on_policy.loss.more.1.low: found "x", expected a number >= 0 and <= 1 or null',
    ),
    "a schedule's option": (
        f"{NESTED}share:\n        type: linear\n        start: x\n        end: 0.1\n",
        'c.yaml:8: objective.on_policy.loss.share.start: found "x", expected a number',
    ),
    "values of a schedule": (
        f"{NESTED}share:\n        type: linear\n        start: 2.0\n        end: 0.1\n",
        "c.yaml:6: objective.on_policy.loss.share: the schedule gives values from 0.1 to 2; expected values >= 0 and "
        "<= 1",
    ),
    "a number": (
        f"{NESTED}share: 1.5\n",
        "c.yaml:6: objective.on_policy.loss.share: expected a finite number >= 0 and <= 1 or a schedule (found 1.5)",
    ),
    "a name without its options": (
        on_policy("linear"),
        "c.yaml:2: objective.on_policy.weight.start: missing; linear needs the option start: write {type: linear, "
        "start: ...}",
    ),
    "a word misspelt": (on_policy("lin"), "token_share or a number >= 0 or a schedule (cosine, counting, linear"),
    "no number": (
        on_policy("true"),
        "c.yaml:2: objective.on_policy.weight: expected unit, proportional, token_share, a finite number >= 0 or a "
        "schedule (found true)",
    ),
    "nothing": (on_policy("null"), "a finite number >= 0 or a schedule (found null)"),
    "too many digits": (on_policy("1" + "0" * 400), "a finite number >= 0 or a schedule (found 1000"),
    "no type": (on_policy("{start: 1.0}"), "objective.on_policy.weight: a schedule given as a mapping needs `type`"),
    "a range that raises": (
        on_policy("{type: blend, share: {type: counting, fault: raises}}", "loss"),
        "objective.on_policy.loss.share: range() of the schedule Step raised KeyError: 'limits'",
    ),
    "a range of text": (
        on_policy("{type: blend, share: {type: counting, fault: text}}", "loss"),
        "range() of the schedule Step gave ('a', 'b'): expected (least, largest), or None",
    ),
    "half a range": (on_policy("{type: counting, fault: one}"), "range() of the schedule Step gave (1.0,)"),
    "a loss without gradient": (
        "objective: {auxiliary: {sft: {samples: guidance, loss: clip}}}\n",
        "objective.auxiliary.sft.loss: found a loss without gradient where the advantage is 0",
    ),
}


@pytest.mark.parametrize(("text", "said"), ERRORS.values(), ids=ERRORS.keys())
def test_a_fault_inside_is_said_at_its_own_line_and_key(load: Load, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(text)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("unit", "unit", "unit"),
        ("proportional", "unit", "unit"),
        ("unit", LINEAR, (1.0, 0.5)),
        (LINEAR, "unit", "unit"),
        (LINEAR, "0.5", 0.5),
        ("0.5", LINEAR, (1.0, 0.5)),
        (LINEAR, "{end: 0.1}", (1.0, 0.1)),
        (LINEAR, "{type: linear, end: 0.1}", (1.0, 0.1)),
        (LINEAR, "linear", (1.0, 0.5)),
        ("{type: linear, start: 1.0, end: 0.5, delay: 3}", "{type: cosine, start: 0.7, end: 0.2}", (0.7, 0.2)),
    ],
)
@pytest.mark.parametrize("way", ["extends", "command line"])
def test_words_numbers_and_schedules_replace_each_other_and_the_same_type_merges(
    load: Load, way: str, before: str, after: str, found: Any
) -> None:
    if way == "extends":
        loaded = load(on_policy(after), parent=on_policy(before))
    else:
        loaded = load(on_policy(before), f"objective.on_policy.weight={after}")
    weight = loaded.data["objective"]["on_policy"]["weight"]
    assert ((weight["start"], weight["end"]) if isinstance(weight, dict) else weight) == found
    assert not isinstance(weight, dict) or weight["delay"] == 0


def test_overrides_reach_inside(load: Load) -> None:
    data = load(
        on_policy(BLEND, "loss"),
        "objective.off_policy.loss.shaping.gamma=0.2",
        "objective.on_policy.weight={type: linear, start: 0.9, end: 0.1}",
        "objective.on_policy.weight.end=0.2",
        "objective.on_policy.loss.loss.shaping=identity",
        "objective.on_policy.loss.share=0.25",
        "objective.on_policy.loss.more.0={type: gspo, low: 0.1}",
        "objective.entropy_coefficient={type: piecewise, start: 0.01, at: [[5, 0.0]]}",
        "objective.entropy_coefficient=0",
    ).data["objective"]
    assert data["off_policy"]["loss"]["shaping"] == {"type": "ratio", "gamma": 0.2}
    assert (data["on_policy"]["weight"]["start"], data["on_policy"]["weight"]["end"]) == (0.9, 0.2)
    assert data["on_policy"]["loss"]["loss"]["shaping"] == {"type": "identity"}
    assert data["on_policy"]["loss"]["share"] == 0.25
    assert data["on_policy"]["loss"]["more"] == [{"type": "gspo", "low": 0.1, "high": 0.0004}]
    assert data["entropy_coefficient"] == 0.0


def test_a_held_component_of_the_same_type_merges_and_another_one_replaces(load: Load) -> None:
    def held(text: str) -> Mapping[str, Any]:
        return load(on_policy(f"{{loss: {text}}}", "loss"), parent=on_policy(BLEND, "loss")).data["objective"][
            "on_policy"
        ]["loss"]["loss"]

    assert held("{clip: [0.1, 0.2]}")["shaping"] == {"type": "power", "exponent": 0.5}
    assert held("{shaping: {exponent: 0.3}}")["shaping"] == {"type": "power", "exponent": 0.3}
    assert held("{shaping: ratio}")["shaping"] == {"type": "ratio", "gamma": 0.1}
    assert held("nll") == {"type": "nll"}
    assert held("shaped")["shaping"] == {"type": "power", "exponent": 0.5}


def test_an_auxiliary_loss_that_reads_recorded_log_probs_asks_for_them(load: Load) -> None:
    recorded = "{type: shaped, behaviour_policy: recorded}"
    text = f"objective: {{auxiliary: {{a: {{samples: rollouts, loss: {recorded}}}, b: {{loss: {recorded}}}}}}}\n"
    loaded = load(text)
    assert [".".join(map(str, path)) for path in loaded.job.objective.reading_teachers()] == [
        "objective.auxiliary.b.loss"
    ]
    assert any("objective.auxiliary.b.loss: it needs the teachers' per-token log-probs" in w for w in loaded.warnings)


def test_what_a_held_component_warns_of_or_lacks_is_said_at_its_key(load: Load) -> None:
    loaded = load(on_policy("{type: blend, loss: {type: shaped, clip: [0.1, 0.1]}}", "loss"))
    assert [text.partition(": the shaped")[0] for text in loaded.warnings] == [
        "c.yaml:2: objective.on_policy.loss.loss.clip"
    ]
    loaded = load(on_policy("{type: blend, share: {type: counting, fault: slow}}", "loss"))
    assert loaded.warnings == ("c.yaml:2: objective.on_policy.loss.share.fault: it counts slowly",)
    loaded = load(on_policy("{type: blend, share: {type: counting, fault: missing}}", "loss"))
    assert loaded.blockers == ("c.yaml:2: objective.on_policy.loss.share: the counter is not installed",)


def test_built_by_the_core_every_held_component_has_its_place(load: Load) -> None:
    text = on_policy("{type: blend, share: counting, more: [nll, {type: blend, share: counting}]}", "loss")
    job = load(text, "objective.auxiliary={more: {samples: rollouts, weight: {type: counting}}}").job
    context = BuildContext()
    parts = ObjectiveParts(job.objective, context, 32)
    inside = {f"on_policy.loss.{name}" for name in ("share", "loss", "more.0", "more.1", "more.1.share", "more.1.loss")}
    assert inside <= set(context.built)
    remembering = sorted(name for name, part in context.built.items() if isinstance(part, Stateful))
    assert remembering == ["more.weight", "on_policy.loss.more.1.share", "on_policy.loss.share"]
    assert parts.at(StepContext(step=3, steps=9)).terms[2].weight == 0.25
    counter: Any = context.built["more.weight"]
    assert counter.state_dict() == {"seen": 3}


def test_built_twice_under_one_name_is_told(third: Plugins) -> None:
    context = BuildContext(place="on_policy.loss")
    context.build(third.catalog.resolve("loss", "nll"))  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"on_policy\.loss\.loss is built twice: give context\.build a name for each"):
        context.build(third.catalog.resolve("loss", "clip"))  # type: ignore[arg-type]
    context.build(third.catalog.resolve("loss", "clip"), "other")  # type: ignore[arg-type]


def test_in_python_a_spec_needs_no_catalog(third: Plugins) -> None:
    shaped: Any = import_module("ampo_plugins.losses").Shaped
    assert shaped().shaping == third.catalog.resolve("shaping", "ratio")
    assert shaped(shaping={"type": "ratio", "gamma": 0.3}).shaping.gamma == 0.3
    power = third.catalog.resolve("shaping", {"type": "power", "exponent": 0.5})
    assert shaped(shaping=power).shaping is power
    blend: Any = third.catalog.entry("loss", "blend").spec
    assert blend(share={"type": "linear", "start": 1.0, "end": 0.0}).share.end == 0.0
    assert blend(loss=blend(loss="clip")).loss.loss.high == 0.2
    for wrong, said in (({"loss": "nl"}, "did you mean 'nll'"), ({"share": 2.0}, "expected a finite number >= 0 and")):
        with pytest.raises(ValidationError, match=said):
            blend(**wrong)
