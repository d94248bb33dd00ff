"""π_old, the policy before a batch's first update: where the loss gets its log-probs, and what is measured of it.

    a sequence is …                          its log-probs under π_old come from
    trained on in the first mini-batch       that update's own forward
    trained on later                         a pass before the first update
    of an older policy (sampled ahead)       the sampler, when it was sampled

Entropy and the gap between sampler and learner are means over all rollouts. What has a forward before any update is
measured by it; of the other rollouts one in `ONE_IN` is forwarded for that alone, and counts for as many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from ampo_registry.errors import RunError

from ampo_core.distributed.ranks import Ranks
from ampo_core.learner.learner import Learner
from ampo_core.learner.tokens import tensor_of
from ampo_core.loop.objective import Objective
from ampo_core.loop.sequences import TrainSequence

ONE_IN = 8

Forwarded = Mapping[int, tuple[torch.Tensor, torch.Tensor]]
"""Index of a sequence -> its log-probs and entropies under π_old, [response tokens] each, no gradient."""


@dataclass(frozen=True, slots=True)
class Forwards:
    """What this rank forwards, as indices of sequences: in a pass `before` the first update, and in the update of each
    mini-batch. `counts`: for how many rollouts each one that is measured stands."""

    before: list[int]
    updates: list[list[int]]
    counts: dict[int, int]


def plan_forwards(
    sequences: Sequence[TrainSequence],
    minibatches: Sequence[Sequence[int]],
    objective: Objective,
    step: int,
    ranks: Ranks,
) -> Forwards:
    """Every rank gets about as many tokens of each mini-batch, of what is trained on and of what is only measured."""

    def share(indices: list[int]) -> list[int]:
        return [indices[j] for j in ranks.balance([len(sequences[i].pair) for i in indices])]

    plan = Forwards([], [], {})
    for number, members in enumerate(minibatches):
        trained = [members[j] for j in objective.trained([sequences[i] for i in members])]
        first = number == 0
        unknown = [i for i in trained if not sequences[i].stale and sequences[i].old_log_probs is None]
        needed = {i for i in unknown if objective.needs_old(sequences[i])}
        forwarded = {i for i in trained if sequences[i].measured and (first or i in needed)}
        mine = share(trained)
        measured = [i for i in members if sequences[i].measured]
        alone = share([i for i in measured if i not in forwarded and _is_measured(i, step)])
        counts = {i: 1 for i in mine if i in forwarded} | dict.fromkeys(alone, 1 if step == 1 else ONE_IN)
        plan.updates.append(mine)
        plan.before.extend(sorted(alone if first else {*counts, *(i for i in mine if i in needed)}))
        plan.counts.update(sorted(counts.items()))
    return plan


def _is_measured(index: int, step: int) -> bool:
    """Every rollout in the first step, then one in `ONE_IN`, others in each step."""
    return step == 1 or (index + step) % ONE_IN == 0


def with_old_log_probs(
    sequences: Sequence[TrainSequence], before: Sequence[int], learner: Learner, temperature: float
) -> tuple[list[TrainSequence], dict[int, tuple[torch.Tensor, torch.Tensor]]]:
    """The pass over the sequences `before` the first update: `sequences` with π_old filled in, and `Forwarded`."""
    found = learner.logprobs_and_entropies([sequences[i].pair for i in before], temperature=temperature)
    forwarded = dict(zip(before, found, strict=True))
    return fill_in(sequences, forwarded), forwarded


def fill_in(sequences: Sequence[TrainSequence], forwarded: Forwarded) -> list[TrainSequence]:
    """`sequences` with `old_log_probs` from `forwarded` where they have none."""
    filled = list(sequences)
    for i, (log_probs, _) in forwarded.items():
        if filled[i].old_log_probs is None:
            filled[i] = replace(filled[i], old_log_probs=log_probs)
    return filled


def old_policy_metrics(
    sequences: Sequence[TrainSequence], counts: Mapping[int, int], forwarded: Forwarded, ranks: Ranks
) -> dict[str, float]:
    """Entropy of π_old, token-mean over the on-policy tokens, and mean |log π_trainer − log π_rollout| of them.

    `counts` says which rollouts of this rank are measured, and for how many each stands.
    """
    sums = [0.0, 0.0, 0.0]
    for i, count in counts.items():
        sample, (log_probs, entropies) = sequences[i].sample, forwarded[i]
        assert sample is not None
        assert sample.logprobs is not None
        sampled = tensor_of(sample.logprobs)
        for start, end in sequences[i].measured:
            sums[0] += count * (end - start)
            sums[1] += count * float(entropies[start:end].sum())
            sums[2] += count * float((log_probs[start:end].cpu() - sampled[start:end]).abs().sum())
    tokens, entropy, gap = ranks.sum(torch.tensor(sums, dtype=torch.float64, device=ranks.device)).tolist()
    return {"policy/entropy": entropy / tokens, "policy/rollout_logprob_gap": gap / tokens} if tokens else {}


def check_parity(gap: float | None, limit: float | None, step: int, sequences: Sequence[TrainSequence] = ()) -> None:
    """Raise RunError if sampler and learner, with the same weights, give the same tokens log-probs that differ by more
    than `limit` nats on average. Not asked where an older policy sampled some of `sequences` that are measured."""
    if limit is None or gap is None or gap <= limit or any(s.stale and s.measured for s in sequences):
        return
    raise RunError(
        f"step {step}: the rollout's log-probs differ from the learner's by {gap:.4g} nats a token on average, more "
        f"than rollout.logprob_gap_limit {limit:g} allows: the sampler has other weights, another precision or other "
        "sampling options than the learner trains with"
    )
