"""The kit finds what it says it finds in losses and schedules: one component for each rule that breaks it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import pytest
from ampo_registry import (
    BuildContext,
    ComponentField,
    LossSpec,
    LossView,
    PluginError,
    Scheduled,
    ScheduleSpec,
    ShapingSpec,
    Stateful,
)
from ampo_registry import testing as kit
from ampo_registry.views import OWN_METRICS
from pydantic import Field

from ampo_core.config.metric_names import TRAIN

if TYPE_CHECKING:
    import torch

CALLS = itertools.count()


class Priced(LossSpec):
    """Breaks one rule."""

    type: Literal["priced"] = "priced"
    fault: str = ""
    names: frozenset[str] = frozenset({"old"})
    zero: bool = True

    @property
    def needs(self) -> Any:
        return list(self.names) if self.fault == "list" else self.names

    @property
    def zero_without_advantage(self) -> bool:  # type: ignore[override]
        return self.zero

    def token_losses(self, view: LossView) -> torch.Tensor:
        losses = -view.advantages * (view.log_probs - view.old)
        match self.fault:
            case "sum":
                return losses.sum()
            case "number":
                return float(losses.detach().sum())  # type: ignore[return-value]
            case "double":
                return losses.double()
            case "detached":
                return losses.detach()
            case "flat":
                return losses.detach() + 0.0 * view.log_probs
            case "reads":
                return losses + view.reference
            case "mean":
                return losses - (losses.sum() / len(losses)).detach()
            case "gradient":
                return losses + view.log_probs.sum() - view.log_probs.sum().detach()
            case "neighbour":
                return losses + losses.roll(1)
            case "ratio":
                return -view.advantages * (3.0 * (view.log_probs - view.old)).exp() ** 2
            case "root":
                return -view.advantages * (-view.log_probs).sqrt()
            case "in place":
                view.advantages.mul_(2.0)
            case "log-probs in place":
                view.log_probs.clamp_(min=-1.0)
            case "restless":
                return losses * next(CALLS)
            case "always":
                return losses + view.log_probs
            case "measured":
                view.measure("gap", losses.sum())
            case "taken":
                view.measure("entropy", losses)
        return losses


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("list", "needs must be a frozenset of names"),
        ("sum", r"one loss for each of 16 tokens; found \(\)"),
        ("number", "must return a tensor"),
        ("double", "the dtype of the log-probs must stay"),
        ("detached", "must be differentiable"),
        ("flat", "there must be a gradient for some token"),
        ("reads", "the loss reads reference, which its `needs` does not name"),
        ("mean", "depend on the tokens of its own sequence only.* use view.mean"),
        ("gradient", "depend on the tokens of its own sequence only|gradient of exactly 0"),
        ("neighbour", "depend on the tokens of its own sequence only"),
        ("ratio", "losses must be finite, also for log-probs down to -1e4 and log-ratios from -20 to 20"),
        ("root", "gradients must be finite"),
        ("in place", "the view must be left as it is"),
        ("log-probs in place", "the view must be left as it is"),
        ("restless", "the same view must give the same losses"),
        ("always", "zero_without_advantage is True, so tokens with advantage 0"),
        ("measured", r"measures 'gap' as \(\): expected one value for each of 16 tokens"),
        ("taken", "measures 'entropy': expected .* none of the core's own names"),
    ],
)
def test_loss_rules(fault: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=f"loss priced: .*({rule})"):
        kit.check_loss(Priced(fault=fault))


def test_a_loss_without_fault_passes_and_one_that_could_skip_sequences_is_told() -> None:
    kit.check_loss(Priced())
    with pytest.raises(AssertionError, match="tokens with advantage 0 have no gradient: say zero_without_advantage"):
        kit.check_loss(Priced(zero=False))


class Boastful(Priced):
    """Names a metric that it measures in no batch."""

    type: Literal["boastful"] = "boastful"  # type: ignore[assignment]
    logs: ClassVar[tuple[str, ...]] = ("gap",)


def test_a_loss_that_names_what_it_does_not_measure_is_told() -> None:
    with pytest.raises(AssertionError, match=r"`logs` names what view.measure gets in every batch.* found \['gap'\]"):
        kit.check_loss(Boastful())


class Judged(Priced):
    """Follows a judge."""

    type: Literal["judged"] = "judged"  # type: ignore[assignment]
    names: frozenset[str] = frozenset({"old", "teacher_a"})

    def token_losses(self, view: LossView) -> torch.Tensor:
        return super().token_losses(view) * (1.0 + view.judge("teacher_a").exp())


def test_a_loss_may_need_a_judge_which_it_then_reads() -> None:
    kit.check_loss(Judged())
    with pytest.raises(AssertionError, match="the loss reads teacher_a, which its `needs` does not name"):
        kit.check_loss(Judged(names=frozenset({"old"})))
    with pytest.raises(AssertionError, match="expected lower case letters, digits and _; found 'Teacher A'"):
        kit.check_loss(Judged(names=frozenset({"old", "Teacher A"})))


def test_a_loss_that_needs_what_there_is_not_is_told_the_nearest() -> None:
    with pytest.raises(
        AssertionError, match=r"needs names 'entropies'; did you mean 'entropy'.* There is old, rollout"
    ):
        kit.check_loss(Priced(names=frozenset({"old", "entropies"})))


def test_no_loss_measures_under_a_name_of_the_core() -> None:
    own = {name.removeprefix("policy/") for name in TRAIN if name.startswith("policy/")}
    assert own - {"clip_fraction"} == OWN_METRICS


class Moved(ScheduleSpec):
    """Breaks one rule."""

    type: Literal["moved"] = "moved"
    fault: str = ""

    def range(self) -> Any:
        return {"turned": (1.0, 0.0), "open": (0.0, float("inf"))}.get(self.fault, (0.0, 1.0))

    def value(self, step: int, steps: int, metrics: Mapping[str, float]) -> float:
        match self.fault:
            case "outside":
                return 1.0 + 0.1 * step
            case "nan":
                return float("nan")
            case "text":
                return "0.5"  # type: ignore[return-value]
            case "restless":
                return 1.0 / (1 + next(CALLS))
            case "first step":
                return metrics["reward/mean"]
            case "unknown":
                return metrics["reward/men"] if metrics else 0.0
            case "writes":
                metrics["mine"] = 1.0  # type: ignore[index]
        return metrics.get("reward/mean", 0.0)


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("turned", "the least value first"),
        ("open", "two finite numbers, or None"),
        ("outside", r"must lie in range\(\), 0 to 1, at step 1 of 1; found 1.1"),
        ("nan", "must be a finite number at step 1 of 1"),
        ("text", "must be a finite number at step 1 of 1; found '0.5'"),
        ("restless", "asked again, it must give the same"),
        ("first step", r"reads the metric 'reward/mean', .*in the first step there are none: use metrics.get"),
        ("unknown", r"reads the metric 'reward/men', which is not there at step 2 of 2$"),
        ("writes", "the metrics must be left as they are"),
    ],
)
def test_schedule_rules(fault: str, rule: str) -> None:
    kit.check_schedule(Moved())
    with pytest.raises(AssertionError, match=f"schedule moved: .*{rule}"):
        kit.check_schedule(Moved(fault=fault))


class Patience:
    """Halves its number whenever the reward has risen; remembers it unless it is to forget."""

    def __init__(self) -> None:
        self.number, self.seen = 1.0, 0

    def value(self, step: int, steps: int, metrics: Mapping[str, float]) -> float:
        if step > self.seen:
            self.seen, self.number = step, self.number / (2.0 if metrics.get("reward/mean", 0.0) > 0.1 else 1.0)
        return self.number


class Remembering(Patience):
    """With its memory as a state."""

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number, self.seen = state["number"], state["seen"]


class Forgetting(Remembering):
    """Puts back half of it."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


class Halving(ScheduleSpec):
    """Falls as the reward rises."""

    type: Literal["halving"] = "halving"
    fault: str = ""

    def build(self, context: BuildContext) -> Patience:
        return {"stateless": Patience, "forgets": Forgetting}.get(self.fault, Remembering)()


def test_a_schedule_with_memory_must_give_and_take_it() -> None:
    assert isinstance(Remembering(), Stateful)
    kit.check_schedule(Halving())
    with pytest.raises(AssertionError, match=r"after step \d+ must see the same values: .* needs state_dict"):
        kit.check_schedule(Halving(fault="stateless"))
    with pytest.raises(AssertionError, match=r"load_state_dict\(\) must put back all"):
        kit.check_schedule(Halving(fault="forgets"))


def test_a_schedule_may_read_metrics_that_its_author_names() -> None:
    class Reads(Moved):
        """Reads what its author says a run has."""

        type: Literal["reads"] = "reads"  # type: ignore[assignment]

        def value(self, step: int, steps: int, metrics: Mapping[str, float]) -> float:
            return metrics["mine/share"] if step > 1 else 0.0

    with pytest.raises(AssertionError, match="'mine/share', which is not there at step 2"):
        kit.check_schedule(Reads())
    kit.check_schedule(Reads(), metrics=lambda step: {"mine/share": 1 / (step + 1)})


class Holder(LossSpec):
    """Holds a component and a scheduled number."""

    type: Literal["holder"] = "holder"
    shaping: Annotated[ShapingSpec, ComponentField("shaping")] = Field(default="ratio", validate_default=True)
    strength: Scheduled = 1.0

    def token_losses(self, view: LossView) -> torch.Tensor:
        return -view.log_probs


class Careless(Holder):
    """Its default stays a name."""

    type: Literal["careless"] = "careless"  # type: ignore[assignment]
    shaping: Annotated[ShapingSpec, ComponentField("shaping")] = Field(default="ratio")  # type: ignore[assignment]


def test_specs_that_hold_components_pass_without_a_catalog_of_their_own() -> None:
    kit.check_loss(Holder())
    kit.check_loss(Holder(strength={"type": "linear", "start": 1.0, "end": 0.0}))
    with pytest.raises(AssertionError, match=r"the default of shaping is a name and no component.*validate_default"):
        kit.check_loss(Careless())


def test_a_view_refuses_what_it_was_not_given() -> None:
    import torch

    view = LossView(torch.zeros(2), torch.zeros(2), torch.tensor([2]))
    for name in ("old", "rollout", "behaviour", "reference", "entropies"):
        with pytest.raises(PluginError, match="which its `needs` does not name"):
            getattr(view, name)
    for name in ("Loss", "a/b", "", "loss"):
        with pytest.raises(PluginError, match="the loss measures"):
            view.measure(name, torch.zeros(2))
