"""From augmented groups to the sequences that the objective sees, and the mini-batches that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ampo_core.config.tree import ObjectiveConfig
from ampo_core.learner.learner import Learner
from ampo_core.learner.packing import TokenPair
from ampo_core.learner.tokens import tensor_of
from ampo_core.loop.groups import AugmentedGroup, Slot
from ampo_core.loop.objective import TrainSequence


def train_sequences(groups: Sequence[AugmentedGroup], step: int, config: ObjectiveConfig) -> list[TrainSequence]:
    """The slots of `groups` as the objective sees them, group by group.

    A rollout of an older policy (sampled ahead) is weighed against the log-probs that were recorded when it was
    sampled; for one of the current policy the learner's own count (see `old_policy.py`). Truncated rollouts are masked
    where the config says so, and those without a verdict always.
    """
    recorded = config.off_policy.behaviour == "recorded"
    weighed = config.on_policy.importance_cap is not None
    sequences = []
    for number, group in enumerate(groups):
        for slot, advantage in zip(group.slots, group.advantages, strict=True):
            stale = slot.rollout is not None and slot.rollout.policy_version < step - 1
            rollout = tensor_of(slot.rollout.logprobs) if slot.rollout and (stale or weighed) else None
            sequences.append(
                TrainSequence(
                    pair=TokenPair(group.question.prompt_token_ids, slot.token_ids),
                    group=number,
                    advantage=advantage,
                    off_policy=slot.off_policy,
                    rollout=slot.rollout,
                    stale=stale,
                    old_log_probs=rollout if stale else None,
                    rollout_log_probs=rollout if weighed else None,
                    behaviour_log_probs=recorded_log_probs(slot) if recorded else None,
                    masked=not slot.verified or (config.on_policy.mask_truncated and slot.truncated),
                )
            )
    return sequences


def recorded_log_probs(slot: Slot) -> torch.Tensor | None:
    """log π_φ of a teacher's tokens as its data recorded them, [response tokens]; None for a rollout."""
    if slot.selection is None:
        return None
    logprobs = slot.selection.guidance.logprobs
    assert logprobs is not None
    return tensor_of(logprobs)


def minibatches(sequences: Sequence[TrainSequence], questions: int) -> list[list[int]]:
    """Indices of the sequences of each mini-batch: at most `questions` groups each, in as few as that takes, and the
    numbers of groups differ by at most one."""
    groups = len({sequence.group for sequence in sequences})
    count = -(-groups // questions)
    return [[i for i, s in enumerate(sequences) if s.group % count == number] for number in range(count)]


def with_reference(
    sequences: Sequence[TrainSequence], mine: Sequence[int], learner: Learner, temperature: float
) -> list[TrainSequence]:
    """`sequences` with the start model's log-probs on the on-policy ones among `mine`, as a KL term needs them."""
    filled = list(sequences)
    on_policy = [i for i in mine if not sequences[i].off_policy]
    found = learner.logprobs([sequences[i].pair for i in on_policy], temperature=temperature, reference=True)
    for i, log_probs in zip(on_policy, found, strict=True):
        filled[i] = replace(filled[i], reference_log_probs=log_probs)
    return filled
