"""Conformance of losses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, cast

from ampo_registry.errors import PluginError
from ampo_registry.protocols import BuildContext
from ampo_registry.seams import NEEDS, Loss, LossSpec
from ampo_registry.testing.common import Rules, check_spec_class, check_state
from ampo_registry.text import nearest
from ampo_registry.views import LossView

if TYPE_CHECKING:
    import torch

OTHERS = ("old", "rollout", "behaviour", "reference")
"""What of `needs` is log-probs, besides those of judges."""
LENGTHS, ADVANTAGES = (3, 1, 7, 5), (1.5, -0.5, -2.0, 0.0)
RARE = (0.0, -1e-6, -1.0, -30.0, -1e4)
"""Log-probs of a sequence of which some tokens are all but impossible."""
GAPS = (0.0, -20.0, 20.0, 0.5, -0.5)
"""… and by how much the policy's log-probs are above the others of its tokens."""
FINITE = "must be finite, also for log-probs down to -1e4 and log-ratios from -20 to 20"
ALONE = (
    "a token's loss and gradient must depend on the tokens of its own sequence only, or packing, micro-batches and "
    "ranks would change a run: use view.mean, view.sum and view.spread, and no number of the whole view"
)


def check_loss(spec: LossSpec) -> None:
    """A loss gives each token a finite, differentiable number that depends on its own sequence only, reads no more
    than its `needs` names, leaves the view as it is, and is without gradient at advantage 0 iff it says so."""
    import torch

    check_spec_class(spec)
    rule = Rules(spec)
    _check_needs(rule, spec)
    component, judges = spec.build(BuildContext()), _judges(spec)
    for dtype in (torch.float32, torch.float64):
        usual = _sequences(dtype, judges)
        for sequences in (usual, [_rare(dtype, 1.0, judges)], [_rare(dtype, -1.0, judges)]):
            _check_values(rule, component, spec.needs, sequences)
    sequences = _sequences(torch.float64, judges)
    whole, again = (_outcome(rule, component, spec.needs, sequences) for _ in range(2))
    _check_read(rule, spec, whole.read)
    rule(torch.equal(whole.losses, again.losses), "the same view must give the same losses")
    rule(bool((whole.gradient != 0).any()), "there must be a gradient for some token")
    silent = sorted(set(spec.logs) - set(whole.measured))
    rule(not silent, "`logs` names what view.measure gets in every batch; these never came", silent or None)
    _check_without_advantage(rule, component, spec, sequences)
    _check_split(rule, component, spec.needs, sequences)
    check_state(spec, component)


def _check_needs(rule: Rules, spec: LossSpec) -> None:
    needs = cast(object, spec.needs)
    rule(isinstance(needs, frozenset), "needs must be a frozenset of names", needs)
    for name in _judges(spec):
        fine = re.fullmatch(r"[a-z][a-z0-9_]*", name)
        rule(fine is not None, "needs names a judge: expected lower case letters, digits and _", name)


def _check_read(rule: Rules, spec: LossSpec, read: Set[str]) -> None:
    """A name that `needs` does not know is a judge's, or a slip: then nothing reads it."""
    for name in sorted(_judges(spec) - read):
        near = nearest(name, NEEDS)
        hint = f"; did you mean {near!r}?" if near else "."
        known = f"There is {', '.join(NEEDS)}; any other is a judge's name, and view.judge({name!r}) is never read"
        rule(False, f"needs names {name!r}{hint} {known}")


def _judges(spec: LossSpec) -> frozenset[str]:
    return frozenset(spec.needs) - set(NEEDS)


def _sequences(dtype: torch.dtype, judges: Set[str] = frozenset()) -> list[dict[str, torch.Tensor]]:
    """Each sequence's tensors by name, [tokens]; whatever a loss may read is there, log-probs of `judges` too."""
    import torch

    source = Random("losses")

    def drawn(length: int, low: float, high: float) -> torch.Tensor:
        return torch.tensor([source.uniform(low, high) for _ in range(length)], dtype=dtype)

    found: list[dict[str, torch.Tensor]] = []
    names = (*OTHERS, *sorted(judges))
    for length, advantage in zip(LENGTHS, ADVANTAGES, strict=True):
        own = drawn(length, -3.0, -0.01)
        others = {name: own + drawn(length, -0.4, 0.4) for name in names}
        advantages = torch.full((length,), advantage, dtype=dtype)
        found.append({"log_probs": own, "advantages": advantages, "entropy": drawn(length, 0.0, 4.0), **others})
    return found


def _rare(dtype: torch.dtype, advantage: float, judges: Set[str]) -> dict[str, torch.Tensor]:
    import torch

    own, gaps = torch.tensor(RARE, dtype=dtype), torch.tensor(GAPS, dtype=dtype)
    others = dict.fromkeys((*OTHERS, *judges), own - gaps)
    return {
        "log_probs": own,
        "advantages": torch.full((len(RARE),), advantage, dtype=dtype),
        "entropy": torch.full((len(RARE),), 11.0, dtype=dtype),
        **others,
    }


@dataclass(frozen=True)
class _Outcome:
    """Losses [tokens], the gradient of a weighted sum of them at log-probs and entropies [2, tokens], sums of what was
    measured, and what of `needs` was read."""

    losses: torch.Tensor
    gradient: torch.Tensor
    measured: Mapping[str, float]
    read: frozenset[str]


class _Given(dict[str, "torch.Tensor"]):
    """What a view holds besides log-probs and advantages; it remembers what was read."""

    def __init__(self, given: Mapping[str, torch.Tensor]) -> None:
        super().__init__(given)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> torch.Tensor:
        self.read.add(name)
        return super().__getitem__(name)


def _outcome(
    rule: Rules, component: Loss, needs: frozenset[str], sequences: Sequence[Mapping[str, torch.Tensor]]
) -> _Outcome:
    import torch

    joined = {name: torch.cat([sequence[name] for sequence in sequences]) for name in sequences[0]}
    leaves = [joined[name].clone().requires_grad_() for name in ("log_probs", "entropy")]
    lengths = torch.tensor([len(sequence["log_probs"]) for sequence in sequences])
    given = _Given({name: joined[name].clone() for name in needs})
    if "entropy" in needs:
        given["entropy"] = leaves[1] * 1.0
    view = LossView(leaves[0] * 1.0, joined["advantages"].clone(), lengths.clone(), given)
    try:
        losses = component.token_losses(view)
    except PluginError as error:
        raise AssertionError(f"{rule.subject}: {error}") from None
    read = frozenset(given.read)
    tokens = len(joined["log_probs"])
    rule(isinstance(cast(object, losses), torch.Tensor), "token_losses must return a tensor", losses)
    rule(losses.shape == (tokens,), f"there must be one loss for each of {tokens} tokens", tuple(losses.shape))
    rule(losses.dtype == joined["log_probs"].dtype, "the dtype of the log-probs must stay", losses.dtype)
    rule(losses.requires_grad, "the losses must be differentiable: do not detach all of view.log_probs")
    kept = {"log_probs": view.log_probs, "advantages": view.advantages, **given}
    alone = all(torch.equal(value, joined[name]) for name, value in kept.items()) and torch.equal(view.lengths, lengths)
    rule(alone, "the view must be left as it is: no in-place change of its tensors")
    factors = torch.cat([torch.linspace(0.5, 2.0, len(s["log_probs"]), dtype=losses.dtype) for s in sequences])
    gradients = torch.autograd.grad((factors * losses).sum(), leaves, materialize_grads=True)
    measured = {name: float(value) for name, value in view.measured.items()}
    return _Outcome(losses.detach(), torch.stack(gradients), measured, read)


def _check_values(
    rule: Rules, component: Loss, needs: frozenset[str], sequences: Sequence[Mapping[str, torch.Tensor]]
) -> None:
    found = _outcome(rule, component, needs, sequences)
    rule(bool(found.losses.isfinite().all()), f"losses {FINITE}", found.losses)
    rule(bool(found.gradient.isfinite().all()), f"gradients {FINITE}", found.gradient)


def _check_without_advantage(
    rule: Rules, component: Loss, spec: LossSpec, sequences: Sequence[Mapping[str, torch.Tensor]]
) -> None:
    zeros = [{**sequence, "advantages": sequence["advantages"] * 0.0} for sequence in sequences]
    found = bool((_outcome(rule, component, spec.needs, zeros).gradient != 0).any())
    if spec.zero_without_advantage:
        rule(not found, "zero_without_advantage is True, so tokens with advantage 0 must have a gradient of exactly 0")
    else:
        text = "tokens with advantage 0 have no gradient: say zero_without_advantage: ClassVar[bool] = True, and they"
        rule(found, f"{text} are not forwarded")


def _check_split(
    rule: Rules, component: Loss, needs: frozenset[str], sequences: Sequence[Mapping[str, torch.Tensor]]
) -> None:
    """Alone, in two halves and in another order every sequence gets the losses and gradients that it has in the
    whole."""
    import torch

    everything = range(len(sequences))
    each = [_outcome(rule, component, needs, [sequence]) for sequence in sequences]
    ways = [everything, everything[:2], everything[2:], everything[::-1], everything[1::2]]
    for way in ways:
        part = _outcome(rule, component, needs, [sequences[i] for i in way])
        losses = torch.cat([each[i].losses for i in way])
        gradient = torch.cat([each[i].gradient for i in way], dim=1)
        same = torch.allclose(part.losses, losses, rtol=1e-9, atol=1e-12)
        rule(same and torch.allclose(part.gradient, gradient, rtol=1e-9, atol=1e-12), ALONE)
        for name, value in part.measured.items():
            added = sum(each[i].measured.get(name, 0.0) for i in way)
            rule(abs(value - added) <= 1e-9 * max(1.0, abs(added)), f"what it measures as {name} must be [tokens]")
