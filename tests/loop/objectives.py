"""Builds objectives from YAML-like options and runs them on batches of the golden files' form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from ampo_registry.discovery import Plugins, discover
from ampo_registry.protocols import BuildContext
from ampo_registry.samples import OFF_POLICY, ON_POLICY
from ampo_registry.step import StepContext
from ampo_registry.tokens import TokenIds

from ampo_core.config.objective import ObjectiveConfig
from ampo_core.learner.packing import TokenPair
from ampo_core.loop.minibatch_loss import MiniBatchLoss
from ampo_core.loop.objective import Objective, ObjectiveParts
from ampo_core.loop.sequences import TrainSequence


@cache
def plugins() -> Plugins:
    return discover()


def make_objective(options: Mapping[str, Any], max_response_tokens: int = 7) -> Objective:
    """The objective block with `options`; entropy 0 unless said."""
    config = ObjectiveConfig.model_validate(
        {"entropy_coefficient": 0.0, **options}, context={"catalog": plugins().catalog}
    )
    return ObjectiveParts(config, BuildContext(), max_response_tokens).at(StepContext(step=1))


def sequence(length: int, group: int, advantage: float, off_policy: bool, **log_probs: Any) -> TrainSequence:
    """A response of one segment: the student's, or a teacher's."""
    pair = TokenPair(TokenIds([0]), TokenIds([1] * length))
    spans = ((OFF_POLICY if off_policy else ON_POLICY, 0, length),)
    return TrainSequence(pair, group, spans, advantage, **log_probs)


def is_off_policy(item: TrainSequence) -> bool:
    """True for a teacher's answer."""
    return bool(item.of(OFF_POLICY))


def floats(value: Any) -> Any:
    """JSON numbers, with "nan" and "inf" spelt out."""
    if isinstance(value, list):
        return [floats(item) for item in value]
    return math.nan if value is None or value == "nan" else float(value)


def sequences_of(
    batch: Mapping[str, Any], dtype: torch.dtype, target_probs: Any = None
) -> tuple[list[TrainSequence], list[torch.Tensor]]:
    """Rows of a golden batch as sequences, and their log-probs as leaves that require gradients."""
    sequences, log_probs = [], []
    for row, mask in enumerate(batch["eos_mask"]):
        length = int(sum(mask))
        tensor = lambda name, r=row, n=length: torch.tensor(floats(batch[name][r][:n]), dtype=dtype)  # noqa: E731
        off_policy = bool(length) and bool(batch["prefix_mask"][row][0])
        behaviour = None
        if target_probs is not None and off_policy:
            behaviour = torch.tensor(floats(target_probs[row][:length]), dtype=dtype).log()
        sequences.append(
            sequence(
                length,
                group=0,
                advantage=float(batch["advantages"][row][0]),
                off_policy=off_policy,
                old_log_probs=None if off_policy else tensor("old_log_prob"),
                behaviour_log_probs=behaviour,
            )
        )
        log_probs.append(tensor("log_prob").requires_grad_(True))
    return sequences, log_probs


def run(
    objective: Objective,
    sequences: Sequence[TrainSequence],
    log_probs: Sequence[torch.Tensor],
    entropies: Sequence[torch.Tensor] | None = None,
    split: Sequence[Sequence[int]] | None = None,
) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradient of each sequence's log-probs, in one micro-batch or in those of `split`."""
    loss = MiniBatchLoss(objective, sequences, range(len(sequences)))
    total = torch.zeros((), dtype=log_probs[0].dtype)
    for part in split or [list(range(len(sequences)))]:
        total = total + loss(
            list(part), [log_probs[i] for i in part], [entropies[i] for i in part] if entropies is not None else []
        )
    leaves = [part for part in log_probs if part.numel()]
    grads = iter(torch.autograd.grad(total, leaves, allow_unused=True))
    return total.item(), [
        torch.zeros_like(part) if not part.numel() or (grad := next(grads)) is None else grad for part in log_probs
    ]
