"""Advantages, aggregators, losses and shapings: tensors that they get and give. Schedules: their numbers.

Whether values on an accelerator are finite is looked at once an update, see `loop/minibatch_loss.py`: to ask at once
would make it wait.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ampo_registry.types import Totals
from ampo_registry.views import LossView

from ampo_core.checked.call import Asked, shown
from ampo_core.checked.component import Checked

if TYPE_CHECKING:
    import torch


class CheckedAdvantage(Checked):
    """One finite number for each sample of a group, 0 where all rewards are equal."""

    def advantages(self, rewards: torch.Tensor, correct: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor:
        own = rewards.tolist()
        values = _kept(self.asked, "advantages", rewards=rewards, correct=correct, off_policy=off_policy)
        _shaped(self.asked, "advantages", values, (len(own),), "one advantage for each of the group's samples")
        _doubles(self.asked, "advantages", values)
        found = values.tolist()
        wrong = next((value for value in found if not math.isfinite(value)), None)
        if wrong is not None:
            raise self.asked.wrong("advantages", f"{wrong} for rewards {own}", "finite numbers")
        if len(set(own)) == 1 and any(found):
            raise self.asked.wrong("advantages", f"{found} for rewards {own}", "exactly 0 for equal rewards")
        return values


class CheckedAggregator(Checked):
    """One finite positive weight for each sequence."""

    def token_weights(self, lengths: torch.Tensor, totals: Totals) -> torch.Tensor:
        own = lengths.tolist()
        values = _kept(self.asked, "token_weights", totals, lengths=lengths)
        _shaped(self.asked, "token_weights", values, (len(own),), "one weight for each sequence")
        _doubles(self.asked, "token_weights", values)
        found = values.tolist()
        for length, value in zip(own, found, strict=True):
            if not math.isfinite(value) or value < 0 or (length and not value):
                text = f"the weight {value} for a sequence of {length} tokens"
                raise self.asked.wrong("token_weights", text, "finite weights above 0")
        return values


class CheckedLoss(Checked):
    """One loss for each token, with a gradient."""

    def token_losses(self, view: LossView) -> torch.Tensor:
        given = {"log_probs": view.log_probs, "advantages": view.advantages, "lengths": view.lengths, **view.given}
        before = {name: value._version for name, value in given.items()}
        values = self.asked.ask("token_losses", view)
        _unchanged(self.asked, "token_losses", given, before)
        _shaped(self.asked, "token_losses", values, tuple(view.log_probs.shape), "one loss for each token")
        _differentiable(self.asked, "token_losses", values, view.log_probs)
        return values  # type: ignore[no-any-return]


class CheckedShaping(Checked):
    """One value for each token, with a gradient."""

    def shape(self, log_ratio: torch.Tensor) -> torch.Tensor:
        values = _kept(self.asked, "shape", log_ratio=log_ratio)
        _shaped(self.asked, "shape", values, tuple(log_ratio.shape), "one value for each token")
        _differentiable(self.asked, "shape", values, log_ratio)
        return values


class CheckedSchedule(Checked):
    """A finite number."""

    def value(self, step: int, steps: int, metrics: Mapping[str, float]) -> float:
        found: object = self.asked.ask("value", step, steps, dict(metrics))
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise self.asked.wrong("value", f"{shown(found)} at step {step}", "a finite number")
        return found


def _kept(asked: Asked, method: str, *more: Any, **given: torch.Tensor) -> torch.Tensor:
    """What `method` gives of the tensors `given`, which it must leave as they are."""
    before = {name: value._version for name, value in given.items()}
    found = asked.ask(method, *given.values(), *more)
    _unchanged(asked, method, given, before)
    return found  # type: ignore[no-any-return]


def _unchanged(asked: Asked, method: str, given: Mapping[str, torch.Tensor], before: Mapping[str, int]) -> None:
    changed = [name for name, value in given.items() if value._version != before[name]]
    if changed:
        raise asked.wrong(method, f"another {changed[0]} than it got, changed in place", "tensors of its own")


def _shaped(asked: Asked, method: str, found: object, shape: tuple[int, ...], expected: str) -> None:
    import torch

    if not isinstance(found, torch.Tensor):
        raise asked.wrong(method, shown(found), f"a tensor of shape {shape}: {expected}")
    if tuple(found.shape) != shape:
        raise asked.wrong(method, f"shape {tuple(found.shape)}", f"{shape}: {expected}")
    if not found.is_floating_point():
        raise asked.wrong(method, f"{found.dtype}", f"floating-point numbers: {expected}")


def _doubles(asked: Asked, method: str, found: torch.Tensor) -> None:
    if str(found.dtype) != "torch.float64":
        raise asked.wrong(method, f"{found.dtype}", "torch.float64")


def _differentiable(asked: Asked, method: str, found: torch.Tensor, source: torch.Tensor) -> None:
    if source.requires_grad and not found.requires_grad:
        raise asked.wrong(method, "values without a gradient", "differentiable ones: nothing would be learnt from them")
    if found.device != source.device:
        raise asked.wrong(method, f"values on {found.device}", f"values on {source.device}")
