"""The loss of one mini-batch, micro-batch by micro-batch: each term on its own tokens, in the objective's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from ampo_registry.judges import START
from ampo_registry.samples import ON_POLICY
from ampo_registry.views import LossView

from ampo_core.distributed.ranks import Ranks
from ampo_core.loop.finite import Fault, Finite
from ampo_core.loop.objective import Objective, Term
from ampo_core.loop.sequences import MAIN, TrainSequence

Part = tuple[TrainSequence, torch.Tensor, torch.Tensor, torch.Tensor]
"""A sequence, the weight of its tokens in a term (a scalar), its log-probs and its entropies ([tokens])."""


class MiniBatchLoss:
    """Adds up what the metrics need on the way.

    `sequences` are those of all ranks; `chosen` are the indices that this rank forwards, in the learner's order;
    none of them may be masked. `first` says that no update came before in this batch: π_old is π_θ itself, so that
    sequences without `old_log_probs` take those of this very forward.
    """

    def __init__(
        self, objective: Objective, sequences: Sequence[TrainSequence], chosen: Sequence[int], *, first: bool = False
    ) -> None:
        self._objective = objective
        self._sequences = [sequences[i] for i in chosen]
        self._weights = {name: values[list(chosen)] for name, values in objective.weights(sequences).items()}
        self._first = first
        self._sums: dict[str, torch.Tensor] = {}
        self.tokens = {term.name: sum(s.tokens(term.name) for s in sequences) for term in objective.terms}
        """Tokens of each term in the whole mini-batch."""
        self._regularised_tokens = sum(self.tokens[name] for name in MAIN)
        self.weighed_tokens = 0
        self._finite = Finite()
        self.forwarded: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """Position in `chosen` -> log-probs and entropies ([tokens], empty if not computed) as they were forwarded."""

    def __call__(
        self, indices: list[int], log_probs: list[torch.Tensor], entropies: list[torch.Tensor]
    ) -> torch.Tensor:
        """The part of the loss of the sequences `indices`, from their log-probs and entropies ([tokens] each)."""
        entropies = entropies or [part.new_empty(0) for part in log_probs]
        for i, part, entropy in zip(indices, log_probs, entropies, strict=True):
            self.forwarded[i] = (part.detach(), entropy.detach())
        total = log_probs[0].new_zeros(())
        for term in self._objective.active:
            weights = self._weights[term.name]
            parts = [
                (self._sequences[i], weights[i], part, entropy)
                for i, part, entropy in zip(indices, log_probs, entropies, strict=True)
                if self._sequences[i].of(term.name)
            ]
            if parts:
                value = self._term(term, parts)
                self._add(f"loss/{term.name}", value)
                total = total + value
        coefficient = self._objective.entropy_coefficient
        if coefficient > 0 and self._regularised_tokens > 0:
            pairs = zip(indices, entropies, strict=True)
            bonus = torch.cat([_cut(entropy, self._sequences[i].of(*MAIN)) for i, entropy in pairs]).sum()
            total = total - coefficient * bonus / self._regularised_tokens
        self._add("loss", total)
        return total

    def fault(self) -> Fault | None:
        """Once the gradient is there: the first loss of this rank whose values or gradient were not finite."""
        return self._finite.fault()

    def explain(self) -> str:
        """The text of `fault`, empty where there is none."""
        fault = self.fault()
        return "" if fault is None else fault.text

    def sums(self) -> Mapping[str, float]:
        """Sums over the calls so far: loss, loss/TERM; what losses measured as NAME/TERM; importance weights."""
        return {name: float(value) for name, value in self._sums.items()}

    def _term(self, term: Term, parts: Sequence[Part]) -> torch.Tensor:
        """Σ weight · token loss over the term's tokens in `parts`; for the student's with KL and importance weights."""
        config = self._objective.config
        view = term_view(term.name, parts, self._objective.needs_of(term), first=self._first)
        view = replace(view, context=self._objective.context)
        samples = [sequence.sample for sequence, _, _, _ in parts]
        losses = self._finite.see(term, view, samples, term.loss.token_losses)
        for name, value in view.measured.items():
            self._add(f"{name}/{term.name}", value)
        if term.name == ON_POLICY and config.on_policy.importance_cap is not None:
            weights = importance_weights(view, config.on_policy.importance_cap)
            losses = weights * losses
            self._add("importance", weights.sum())
            self.weighed_tokens += len(weights)
        if term.name == ON_POLICY and config.kl is not None:
            estimator = config.kl.estimator
            estimates = self._finite.see(
                None, view, samples, lambda given: kl_estimates(given.log_probs, given.reference, estimator)
            )
            losses = losses + config.kl.coefficient * estimates
        scales = view.spread(torch.stack([weight for _, weight, _, _ in parts]).to(view.log_probs))
        return (scales * losses).sum()

    def _add(self, name: str, value: torch.Tensor) -> None:
        self._sums[name] = self._sums.get(name, torch.zeros_like(value)).detach() + value.detach()


def faults_of(losses: Sequence[MiniBatchLoss], ranks: Ranks) -> list[Fault]:
    """The faults of the mini-batches `losses` on all ranks; every rank calls it."""
    return [fault for found in ranks.each([loss.fault() for loss in losses]) for fault in found if fault is not None]


def term_view(term: str, parts: Sequence[Part], needs: frozenset[str], *, first: bool) -> LossView:
    """The tokens of `term` in `parts`, laid end to end. Raises ValueError where log-probs that it needs are missing."""
    pieces = [_cut(log_probs, sequence.of(term)) for sequence, _, log_probs, _ in parts]
    joined = torch.cat(pieces)
    lengths = torch.tensor([len(piece) for piece in pieces], device=joined.device)

    def given(sequence: TrainSequence, name: str, own: torch.Tensor, entropy: torch.Tensor) -> torch.Tensor:
        known = {
            "old": sequence.old_log_probs,
            "rollout": sequence.rollout_log_probs,
            "behaviour": sequence.behaviour_log_probs,
            "reference": sequence.reference_log_probs,
            START: sequence.reference_log_probs,
            "entropy": entropy,
        }.get(name, sequence.judged.get(name))
        if name == "rollout" and not sequence.recorded(term):
            old = given(sequence, "old", own, entropy).to(own)
            return old if known is None else torch.where(known.to(own).isnan(), old, known.to(own))
        if name == "behaviour" and known is None:
            return own.new_zeros(len(own))
        if name == "old" and known is None and first:
            return own.detach()
        if known is None:
            raise ValueError(f"a sequence of {term} without {name}_log_probs")
        return known

    values = {
        name: torch.cat([_cut(given(s, name, own, entropy).to(own), s.of(term)) for s, _, own, entropy in parts])
        for name in needs
    }
    advantages = torch.cat(
        [_advantages(sequence, term, len(piece)) for (sequence, _, _, _), piece in zip(parts, pieces, strict=True)]
    )
    return LossView(joined, advantages.to(joined), lengths, values)


def _advantages(sequence: TrainSequence, term: str, tokens: int) -> torch.Tensor:
    """The advantage of each of the `tokens` of `term`: [tokens] float64."""
    if isinstance(sequence.advantage, torch.Tensor):
        return _cut(sequence.advantage, sequence.of(term))
    return torch.full((tokens,), sequence.advantage, dtype=torch.float64)


def _cut(values: torch.Tensor, ranges: Sequence[tuple[int, int]]) -> torch.Tensor:
    """`values` [response tokens] within `ranges`, in order; `values` itself where they are one and the whole."""
    if not len(values) or list(ranges) == [(0, len(values))]:
        return values
    if len(ranges) == 1:
        return values[ranges[0][0] : ranges[0][1]]
    return torch.cat([values[start:end] for start, end in ranges]) if ranges else values[:0]


def importance_weights(view: LossView, cap: float) -> torch.Tensor:
    """min(π_old / π_rollout, cap) of each token [tokens], no gradient: truncated importance sampling for a sampler
    whose probabilities differ from the trainer's."""
    return (view.old - view.rollout).exp().clamp(max=cap)


def kl_estimates(log_probs: torch.Tensor, reference: torch.Tensor, estimator: str) -> torch.Tensor:
    """Estimates of KL(π_θ‖π_ref) at each token [tokens]: k2 = (log x)²/2, k3 = x − 1 − log x with x = π_ref/π_θ.

    A loss follows their gradient, on-policy in expectation: that of k2 is the gradient of KL(π_θ‖π_ref), that of k3 the
    gradient of KL(π_ref‖π_θ). k1 = −log x, whose expected gradient is 0, is refused in configs.
    """
    log_x = reference - log_probs
    if estimator == "k2":
        return log_x.square() / 2
    return log_x.exp() - 1.0 - log_x
