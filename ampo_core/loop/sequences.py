"""From augmented groups to the sequences that the objective sees, with the log-probs that it compares against."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import torch

from ampo_core.distributed.ranks import Ranks
from ampo_core.learner.packing import TokenPair
from ampo_core.loop.guidance import AugmentedGroup, Slot
from ampo_core.loop.objective import TrainSequence
from ampo_core.loop.parts import TrainParts

MEASURED = 8
"""Of the sequences without a gradient one in so many is forwarded, and counts for all of them in the metrics."""


def train_sequences(
    groups: Sequence[AugmentedGroup], step: int, parts: TrainParts
) -> tuple[list[TrainSequence], list[Slot]]:
    """The groups' slots as the objective sees them, and the slots themselves.

    A rollout of an older policy is weighed against the log-probs that were recorded when it was sampled; for one of
    the current policy the learner's own count (see `with_old_log_probs`).
    """
    objective = parts.job.objective
    slots = [slot for group in groups for slot in group.slots]
    advantages = [(number, advantage) for number, group in enumerate(groups) for advantage in group.advantages]
    prompts = [group.question.prompt_token_ids for group in groups for _ in group.slots]
    sequences = []
    for slot, prompt, (number, advantage) in zip(slots, prompts, advantages, strict=True):
        rollout = None if slot.rollout is None else torch.tensor(slot.rollout.logprobs)
        sequences.append(
            TrainSequence(
                pair=TokenPair(prompt, slot.token_ids),
                group=number,
                advantage=advantage,
                off_policy=slot.off_policy,
                old_log_probs=rollout if is_stale(slot, step) else None,
                rollout_log_probs=rollout if objective.on_policy.importance_cap is not None else None,
                behaviour_log_probs=recorded_log_probs(slot) if objective.off_policy.behaviour == "recorded" else None,
                masked=objective.on_policy.mask_truncated and slot.truncated,
            )
        )
    return sequences, slots


def with_old_log_probs(
    sequences: Sequence[TrainSequence], mine: Sequence[int], parts: TrainParts
) -> tuple[list[TrainSequence], dict[int, tuple[torch.Tensor, torch.Tensor]]]:
    """`sequences` with π_old filled in on the on-policy ones among `mine`, this rank's; and index -> log-probs and
    entropies of those under the current policy."""
    temperature, filled = parts.sampling.temperature, list(sequences)
    on_policy = [i for i in mine if not sequences[i].off_policy]
    found = parts.learner.logprobs_and_entropies([sequences[i].pair for i in on_policy], temperature=temperature)
    for i, (log_probs, _) in zip(on_policy, found, strict=True):
        if sequences[i].old_log_probs is None:
            filled[i] = replace(filled[i], old_log_probs=log_probs)
    return filled, dict(zip(on_policy, found, strict=True))


def with_reference(sequences: Sequence[TrainSequence], mine: Sequence[int], parts: TrainParts) -> list[TrainSequence]:
    """`sequences` with the start model's log-probs on the on-policy ones among `mine`, where a KL term needs them."""
    if parts.job.objective.kl is None:
        return list(sequences)
    filled = list(sequences)
    on_policy = [i for i in mine if not sequences[i].off_policy]
    pairs = [sequences[i].pair for i in on_policy]
    found = parts.learner.logprobs(pairs, temperature=parts.sampling.temperature, reference=True)
    for i, log_probs in zip(on_policy, found, strict=True):
        filled[i] = replace(filled[i], reference_log_probs=log_probs)
    return filled


def is_stale(slot: Slot, step: int) -> bool:
    """True for a rollout that an older policy than the current one has sampled."""
    return slot.rollout is not None and slot.rollout.policy_version < step - 1


def recorded_log_probs(slot: Slot) -> torch.Tensor | None:
    """log π_φ of a teacher's tokens as its data recorded them, [response tokens]; None for a rollout."""
    return None if slot.selection is None else torch.tensor(slot.selection.guidance.logprobs)


def share_of(members: Sequence[int], trained: Set[int], sequences: Sequence[TrainSequence], ranks: Ranks) -> list[int]:
    """This rank's sequences of a mini-batch: about as many tokens as every rank, of those that are trained and of the
    rest."""
    share = []
    for kind in (True, False):
        chosen = [i for i in members if (i in trained) is kind]
        share += [chosen[j] for j in ranks.balance([len(sequences[i].pair) for i in chosen])]
    return sorted(share)


def measured(sequence: int, step: int) -> bool:
    """True if a sequence that is not trained on is forwarded all the same, for the metrics of π_old and the parity of
    sampler and learner: every one in the first step, then one in `MEASURED`, others in each step."""
    return step == 1 or (sequence + step) % MEASURED == 0
