"""The loss (Eq. 2 and 7): weights for every sequence of a mini-batch, and the loss of any part of it.

Loss = Σ weight · token loss over all sequences. The weights come from the whole mini-batch of all ranks, so how
its sequences are packed, split, accumulated or sharded changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from ampo_registry.protocols import LARGEST_LOG_RATIO, Aggregator, BuildContext, Shaping
from ampo_registry.types import Rollout, Totals

from ampo_core.config.tree import ObjectiveConfig, OffPolicyConfig, OnPolicyConfig
from ampo_core.learner.packing import TokenPair


@dataclass(frozen=True, slots=True)
class TrainSequence:
    """A response as the objective sees it. Log-prob tensors are [response tokens], without gradient.

    `group` numbers the group within the batch; `rollout` is what was sampled (on-policy), `stale` if an older policy
    than the current one did. `old_log_probs` are those of π_old (on-policy), None where π_old is the policy that the
    loss is first computed with; `rollout_log_probs` are the sampler's (on-policy, where importance weights need them);
    `behaviour_log_probs` are log π_φ where recorded (off-policy), `reference_log_probs` those of the start model.
    `masked` leaves the sequence out of loss and denominators.
    """

    pair: TokenPair
    group: int
    advantage: float
    off_policy: bool
    rollout: Rollout | None = None
    stale: bool = False
    old_log_probs: torch.Tensor | None = None
    rollout_log_probs: torch.Tensor | None = None
    behaviour_log_probs: torch.Tensor | None = None
    reference_log_probs: torch.Tensor | None = None
    masked: bool = False

    @property
    def length(self) -> int:
        """Response tokens."""
        return len(self.pair.response_token_ids)


class Objective:
    """The objective block with its aggregators and shaping built."""

    def __init__(self, config: ObjectiveConfig, context: BuildContext, max_response_tokens: int) -> None:
        self.config = config
        self.max_response_tokens = max_response_tokens
        self.shaping: Shaping = config.off_policy.shaping.build(context)
        self._on: Aggregator = config.on_policy.aggregator.build(context)
        self._off: Aggregator = config.off_policy.aggregator.build(context)

    def components(self) -> dict[str, object]:
        """The built components by name."""
        return {"on_policy.aggregator": self._on, "off_policy.aggregator": self._off, "shaping": self.shaping}

    @property
    def regularised(self) -> bool:
        """True if entropy or KL give every sequence a gradient, whatever its advantage."""
        return self.config.entropy_coefficient > 0 or self.config.kl is not None

    def trained(self, sequences: Sequence[TrainSequence]) -> list[int]:
        """Indices of the sequences that need a forward: unmasked, and with a gradient. The others still count in
        the denominators."""
        return [i for i, s in enumerate(sequences) if not s.masked and (self.regularised or s.advantage != 0.0)]

    def weights(self, sequences: Sequence[TrainSequence]) -> torch.Tensor:
        """The weight of each token of each sequence of a mini-batch: [sequences] float64.

        The aggregator is asked once per scope and source; its weights are multiplied by the term's weight and,
        for scope `group`, by 1/questions. Masked sequences weigh 0.
        """
        weights = torch.zeros(len(sequences), dtype=torch.float64)
        trained = [i for i, sequence in enumerate(sequences) if not sequence.masked]
        scopes: dict[int, list[int]] = {}
        for i in trained:
            scopes.setdefault(sequences[i].group if self.config.scope == "group" else 0, []).append(i)
        questions = len({sequence.group for sequence in sequences}) if self.config.scope == "group" else 1
        for members in scopes.values():
            everything = self._totals(sequences, members)
            for off_policy in (False, True):
                chosen = [i for i in members if sequences[i].off_policy is off_policy]
                if not chosen:
                    continue
                totals = self._totals(sequences, chosen)
                term = self.config.off_policy if off_policy else self.config.on_policy
                lengths = torch.tensor([sequences[i].length for i in chosen])
                rule = (self._off if off_policy else self._on).token_weights(lengths, totals)
                weights[chosen] = rule * term_weight(term, totals, everything) / questions
        return weights

    def _totals(self, sequences: Sequence[TrainSequence], members: Sequence[int]) -> Totals:
        return Totals(sum(sequences[i].length for i in members), len(members), self.max_response_tokens)


def term_weight(term: OnPolicyConfig | OffPolicyConfig, totals: Totals, everything: Totals) -> float:
    """The weight of a term in its scope: 1, its share of the responses or of the tokens, or a given number."""
    if term.weight == "unit":
        return 1.0
    if term.weight == "proportional":
        return totals.sequences / everything.sequences
    if term.weight == "token_share":
        return totals.tokens / everything.tokens
    return float(term.weight)


class MiniBatchLoss:
    """The loss of one mini-batch, micro-batch by micro-batch; adds up what the metrics need on the way.

    `sequences` are those of all ranks; `chosen` are the indices that this rank forwards, in the learner's order;
    none of them may be masked. `first` says that no update came before in this batch: π_old is π_θ itself, so that
    sequences without `old_log_probs` take those of this very forward.
    """

    def __init__(
        self, objective: Objective, sequences: Sequence[TrainSequence], chosen: Sequence[int], *, first: bool = False
    ) -> None:
        self._objective = objective
        self._sequences = [sequences[i] for i in chosen]
        self._weights = objective.weights(sequences)[list(chosen)]
        self._trained_tokens = sum(sequence.length for sequence in sequences if not sequence.masked)
        self.on_policy_tokens = sum(s.length for s in sequences if not s.masked and not s.off_policy)
        self.weighed_tokens = 0
        self._first = first
        self._sums: dict[str, torch.Tensor] = {}
        self.forwarded: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """Position in `chosen` -> log-probs and entropies ([tokens], empty if not computed) as they were forwarded."""

    def __call__(
        self, indices: list[int], log_probs: list[torch.Tensor], entropies: list[torch.Tensor]
    ) -> torch.Tensor:
        """The part of the loss of the sequences `indices`, from their log-probs and entropies ([tokens] each)."""
        config = self._objective.config
        for position, (i, part) in enumerate(zip(indices, log_probs, strict=True)):
            entropy = entropies[position].detach() if entropies else part.new_empty(0)
            self.forwarded[i] = (part.detach(), entropy)
        total = log_probs[0].new_zeros(())
        for off_policy in (False, True):
            chosen = [
                (self._sequences[i], self._weights[i], part)
                for i, part in zip(indices, log_probs, strict=True)
                if self._sequences[i].off_policy is off_policy
            ]
            if not chosen:
                continue
            tokens = _Tokens.of(*zip(*chosen, strict=True), first=self._first)
            if off_policy:
                losses = off_policy_losses(tokens, config.off_policy, self._objective.shaping)
            else:
                losses, clipped = on_policy_losses(tokens, config.on_policy)
                self._add("clipped", clipped)
                if config.on_policy.importance_cap is not None:
                    weights = importance_weights(tokens, config.on_policy.importance_cap)
                    losses = weights * losses
                    self._add("importance", weights.sum())
                    self.weighed_tokens += len(weights)
                if config.kl is not None:
                    if any(sequence.reference_log_probs is None for sequence, _, _ in chosen):
                        raise ValueError("a KL term needs reference_log_probs")
                    kl = kl_estimates(tokens.log_probs, tokens.reference, config.kl.estimator)
                    losses = losses + config.kl.coefficient * kl
            term = (tokens.weights * losses).sum()
            self._add("loss_off" if off_policy else "loss_on", term)
            total = total + term
        if config.entropy_coefficient > 0 and self._trained_tokens > 0:
            total = total - config.entropy_coefficient * torch.cat(entropies).sum() / self._trained_tokens
        self._add("loss", total)
        return total

    def sums(self) -> Mapping[str, float]:
        """Sums over the calls so far: loss, loss_on, loss_off; over on-policy tokens: clipped, importance weights."""
        return {name: float(value) for name, value in self._sums.items()}

    def _add(self, name: str, value: torch.Tensor) -> None:
        self._sums[name] = self._sums.get(name, torch.zeros_like(value)).detach() + value.detach()


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The tokens of several sequences of one source, concatenated: [tokens] tensors."""

    log_probs: torch.Tensor
    weights: torch.Tensor
    advantages: torch.Tensor
    old: torch.Tensor
    rollout: torch.Tensor
    behaviour: torch.Tensor
    reference: torch.Tensor

    @classmethod
    def of(
        cls,
        sequences: tuple[TrainSequence, ...],
        weights: tuple[torch.Tensor, ...],
        log_probs: tuple[torch.Tensor, ...],
        *,
        first: bool,
    ) -> _Tokens:
        joined = torch.cat(log_probs)
        lengths = torch.tensor([len(part) for part in log_probs], device=joined.device)

        def spread(values: torch.Tensor) -> torch.Tensor:
            return values.to(joined.device).repeat_interleave(lengths, output_size=len(joined)).to(joined.dtype)

        def recorded(parts: Sequence[torch.Tensor | None]) -> torch.Tensor:
            known = (
                own.new_zeros(len(own)) if part is None else part.to(own)
                for part, own in zip(parts, log_probs, strict=True)
            )
            return torch.cat(list(known))

        if not first and any(s.old_log_probs is None and not s.off_policy for s in sequences):
            raise ValueError("an on-policy sequence without old_log_probs")
        old = [
            part.detach() if s.old_log_probs is None else s.old_log_probs
            for s, part in zip(sequences, log_probs, strict=True)
        ]

        return cls(
            log_probs=joined,
            weights=spread(torch.stack(list(weights))),
            advantages=spread(torch.tensor([s.advantage for s in sequences], dtype=torch.float64)),
            old=recorded(old),
            rollout=recorded([s.rollout_log_probs for s in sequences]),
            behaviour=recorded([s.behaviour_log_probs for s in sequences]),
            reference=recorded([s.reference_log_probs for s in sequences]),
        )


def on_policy_losses(tokens: _Tokens, config: OnPolicyConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """−CLIP(r, A, ε) of each token [tokens], and how many tokens the clip binds for (Eq. 2)."""
    log_ratio = tokens.log_probs - tokens.old
    if config.log_ratio_clamp is not None:
        log_ratio = log_ratio.clamp(-config.log_ratio_clamp, config.log_ratio_clamp)
    ratio = log_ratio.exp()
    losses = -tokens.advantages * ratio
    clipped = torch.zeros((), dtype=torch.int64, device=losses.device)
    if config.clip is not None:
        low, high = config.clip
        bounded = -tokens.advantages * ratio.clamp(1.0 - low, 1.0 + high)
        clipped = (bounded > losses).sum()
        losses = torch.maximum(losses, bounded)
    if config.dual_clip is not None:
        capped = torch.minimum(losses, -tokens.advantages * config.dual_clip)
        losses = torch.where(tokens.advantages < 0, capped, losses)
    return losses, clipped


def importance_weights(tokens: _Tokens, cap: float) -> torch.Tensor:
    """min(π_old / π_rollout, cap) of each token [tokens], no gradient: truncated importance sampling for a sampler
    whose probabilities differ from the trainer's."""
    return (tokens.old - tokens.rollout).exp().clamp(max=cap)


def off_policy_losses(tokens: _Tokens, config: OffPolicyConfig, shaping: Shaping) -> torch.Tensor:
    """−f(r̂)·Â of each teacher token [tokens] (Eq. 7); π_φ is 1 unless recorded."""
    shaped = shaping.shape((tokens.log_probs - tokens.behaviour).clamp(max=LARGEST_LOG_RATIO))
    losses = -tokens.advantages * shaped
    if config.clip is not None:
        low, high = config.clip
        losses = torch.maximum(losses, -tokens.advantages * shaped.clamp(1.0 - low, 1.0 + high))
    return losses


def kl_estimates(log_probs: torch.Tensor, reference: torch.Tensor, estimator: str) -> torch.Tensor:
    """Estimates of KL(π_θ‖π_ref) at each token [tokens]: k2 = (log x)²/2, k3 = x − 1 − log x with x = π_ref/π_θ.

    A loss follows their gradient, on-policy in expectation: that of k2 is the gradient of KL(π_θ‖π_ref), that of k3 the
    gradient of KL(π_ref‖π_θ). k1 = −log x, whose expected gradient is 0, is refused in configs.
    """
    log_x = reference - log_probs
    if estimator == "k2":
        return log_x.square() / 2
    return log_x.exp() - 1.0 - log_x
