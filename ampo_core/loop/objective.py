"""The loss (Eq. 2 and 7) as terms: which sequences a step forwards, and the weight of each of their tokens.

Loss = Σ weight · token loss over all terms and sequences. The weights come from the whole mini-batch of all ranks, so
how its sequences are packed, split, accumulated or sharded changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from ampo_registry.errors import RunError
from ampo_registry.judges import START
from ampo_registry.protocols import Aggregator, BuildContext, Constant
from ampo_registry.samples import OFF_POLICY, ON_POLICY
from ampo_registry.seams import NEEDS, Loss, LossSpec
from ampo_registry.step import Schedule, StepContext
from ampo_registry.types import Totals

from ampo_core.config.objective import AuxiliaryConfig, ObjectiveConfig, OffPolicyConfig, OnPolicyConfig
from ampo_core.loop.sequences import MAIN, TrainSequence


@dataclass(frozen=True, slots=True)
class Term:
    """A term of the objective in a step: what its tokens cost, how they are weighed, and its weight, which is a number
    or a share of the scope (proportional, token_share). `silent`: its weight has come to 0, and nothing of it is
    computed."""

    name: str
    spec: LossSpec
    loss: Loss
    aggregator: Aggregator
    weight: float | str
    silent: bool = False

    def share(self, totals: Totals, everything: Totals) -> float:
        """The weight of the term in its scope: a number, or its share of the responses or of the tokens."""
        if isinstance(self.weight, float):
            return self.weight
        if self.weight == "unit":
            return 1.0
        if self.weight == "proportional":
            return totals.sequences / everything.sequences
        return totals.tokens / everything.tokens


@dataclass(frozen=True, slots=True)
class Objective:
    """The objective of one step, with its weights as numbers."""

    config: ObjectiveConfig
    terms: tuple[Term, ...]
    entropy_coefficient: float
    max_response_tokens: int
    context: StepContext

    @property
    def active(self) -> tuple[Term, ...]:
        """The terms that are computed."""
        return tuple(term for term in self.terms if not term.silent)

    @property
    def needs(self) -> frozenset[str]:
        """What any of the terms reads: "old", "rollout", "behaviour", "reference", "entropy", and judges by name."""
        return frozenset(need for term in self.active for need in self.needs_of(term))

    def needs_of(self, term: Term) -> frozenset[str]:
        """What `term` reads, importance weights and KL included."""
        if term.name != ON_POLICY:
            return term.spec.needs
        weighed = {"old", "rollout"} if self.config.on_policy.importance_cap is not None else set[str]()
        return term.spec.needs | weighed | ({"reference"} if self.config.kl is not None else set[str]())

    def needing(self, need: str) -> tuple[str, ...]:
        """Names of the terms that read `need`."""
        return tuple(term.name for term in self.active if need in self.needs_of(term))

    @property
    def judges(self) -> dict[str, tuple[str, ...]]:
        """The judges that terms read, with the names of these terms; "reference" is the judge `start`."""
        reading = {name: self.needing(name) for name in sorted(self.needs - set(NEEDS))}
        if "reference" in self.needs:
            reading[START] = (*reading.get(START, ()), *self.needing("reference"))
        return reading

    def needs_old(self, sequence: TrainSequence) -> bool:
        """True if a term reads π_old on tokens of `sequence`, or would like the sampler's log-probs and they are not
        known there."""
        for term in self.active:
            needs = self.needs_of(term) if sequence.of(term.name) else frozenset[str]()
            if "old" in needs or ("rollout" in needs and not sequence.recorded(term.name)):
                return True
        return False

    @property
    def regularised(self) -> bool:
        """True if entropy or KL give every sequence of a group a gradient, whatever its advantage."""
        has_kl = self.config.kl is not None and any(term.name == ON_POLICY for term in self.active)
        return self.entropy_coefficient > 0 or has_kl

    def trained(self, sequences: Sequence[TrainSequence]) -> list[int]:
        """Indices of the sequences that need a forward: unmasked, and with a gradient. The others still count in
        the denominators."""
        return [i for i, sequence in enumerate(sequences) if self._has_gradient(sequence)]

    def _has_gradient(self, sequence: TrainSequence) -> bool:
        if self.regularised and sequence.of(*MAIN):
            return True
        return any(
            sequence.of(term.name) and (sequence.has_advantage or not term.spec.zero_without_advantage)
            for term in self.active
        )

    def weights(self, sequences: Sequence[TrainSequence]) -> dict[str, torch.Tensor]:
        """By term the weight of each of its tokens in each sequence of a mini-batch: [sequences] float64.

        A term's aggregator is asked once per scope; its weights are multiplied by the term's weight and, for scope
        `group`, by 1/questions: those of the batch that the mini-batch holds. A sequence without tokens of a term
        weighs 0 there.
        """
        weights = {term.name: torch.zeros(len(sequences), dtype=torch.float64) for term in self.terms}
        grouped = self.config.scope == "group"
        scopes: dict[int, list[int]] = {}
        for i, sequence in enumerate(sequences):
            if sequence.spans:
                scopes.setdefault(sequence.group if grouped else 0, []).append(i)
        own = {sequence.group for sequence in sequences if not sequence.foreign}
        questions = len(own or scopes) if grouped else 1
        for members in scopes.values():
            parts = [self._totals(sequences, members, name) for name in MAIN]
            everything = Totals(
                sum(part.tokens for part in parts), sum(part.sequences for part in parts), self.max_response_tokens
            )
            for term in self.active:
                chosen = [i for i in members if sequences[i].of(term.name)]
                if not chosen:
                    continue
                totals = self._totals(sequences, members, term.name)
                lengths = torch.tensor([sequences[i].tokens(term.name) for i in chosen])
                rule = term.aggregator.token_weights(lengths, totals)
                weights[term.name][chosen] = rule * term.share(totals, everything) / questions
        return weights

    def _totals(self, sequences: Sequence[TrainSequence], members: Sequence[int], term: str) -> Totals:
        lengths = [sequences[i].tokens(term) for i in members if sequences[i].of(term)]
        return Totals(sum(lengths), len(lengths), self.max_response_tokens)


@dataclass(frozen=True, slots=True)
class _Block:
    """A term as it was built: its weight may be a schedule."""

    term: Term
    weight: Schedule | str


class ObjectiveParts:
    """The objective block with its losses, aggregators and schedules built; `at` gives the objective of a step."""

    def __init__(self, config: ObjectiveConfig, context: BuildContext, max_response_tokens: int) -> None:
        self.config = config
        self.max_response_tokens = max_response_tokens
        blocks: dict[str, OnPolicyConfig | OffPolicyConfig | AuxiliaryConfig] = {
            ON_POLICY: config.on_policy,
            OFF_POLICY: config.off_policy,
            **config.auxiliary,
        }
        self._blocks = []
        for name, block in blocks.items():
            loss = context.build(block.loss, f"{name}.loss")
            aggregator = context.build(block.aggregator, f"{name}.aggregator")
            weight = block.weight if isinstance(block.weight, str) else context.build(block.weight, f"{name}.weight")
            self._blocks.append(_Block(Term(name, block.loss, loss, aggregator, "unit"), weight))
        self._entropy = context.build(config.entropy_coefficient, "entropy_coefficient")

    def at(self, context: StepContext) -> Objective:
        """The objective of the step of `context`. Raises RunError for a weight below 0 or that is no number."""
        terms = []
        for block in self._blocks:
            term, weight = block.term, block.weight
            number = weight if isinstance(weight, str) else _weight(context.value(weight), f"{term.name}.weight")
            # a main term whose weight is 0 throughout is still measured: loss and clip fraction are of use without it
            measured = term.name in MAIN and isinstance(weight, Constant)
            terms.append(replace(term, weight=number, silent=number == 0.0 and not measured))
        entropy = _weight(context.value(self._entropy), "entropy_coefficient")
        return Objective(self.config, tuple(terms), entropy, self.max_response_tokens, context)


def _weight(value: object, name: str) -> float:
    if not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise RunError(f"objective: the schedule of {name} came to {value!r}; a weight is a number of at least 0")
    return float(value)
