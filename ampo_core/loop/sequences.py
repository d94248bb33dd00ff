"""From guided questions to the sequences that the objective sees, and the mini-batches that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from ampo_registry.judges import START
from ampo_registry.samples import OFF_POLICY, ON_POLICY, Sample
from ampo_registry.tokens import LogProbs

from ampo_core.config.objective import ObjectiveConfig
from ampo_core.learner.packing import TokenPair
from ampo_core.learner.tokens import tensor_of
from ampo_core.loop.groups import GuidedBatch

Span = tuple[str, int, int]
"""A term, and start and end of tokens of the response that it trains."""
NONE_KNOWN: Mapping[tuple[bytes, bytes], LogProbs] = MappingProxyType({})
MAIN = (ON_POLICY, OFF_POLICY)
"""The terms that every objective has, in the order in which they are added up."""


@dataclass(frozen=True, slots=True)
class TrainSequence:
    """A response as the objective sees it. Log-prob tensors are [response tokens], without gradient.

    `group` numbers the question within the batch: the scope of a mean per question. `spans` say which terms train which
    tokens; several may train the same ones, and what is masked is in none. `foreign`: of a question that is not of this
    batch. `stale`: an older policy than the current one sampled it, and its log-probs are known.
    `old_log_probs` are those of π_old, None where that is the policy that the loss is first computed with;
    `rollout_log_probs` the sampler's, NaN where it did not write the token, `behaviour_log_probs` those of who wrote
    the tokens, `reference_log_probs` those of the start model, `judged` those of other judges by name: each where the
    objective needs it. `advantage` is one number, or one for each token of the response, float64.
    """

    pair: TokenPair
    group: int
    spans: tuple[Span, ...]
    advantage: float | torch.Tensor = 0.0
    sample: Sample | None = None
    foreign: bool = False
    stale: bool = False
    old_log_probs: torch.Tensor | None = None
    rollout_log_probs: torch.Tensor | None = None
    behaviour_log_probs: torch.Tensor | None = None
    reference_log_probs: torch.Tensor | None = None
    judged: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Response tokens."""
        return len(self.pair.response_token_ids)

    def of(self, *terms: str) -> list[tuple[int, int]]:
        """Start and end of the tokens of `terms`, in order."""
        return [(start, end) for term, start, end in self.spans if term in terms]

    def tokens(self, *terms: str) -> int:
        """How many tokens `terms` train."""
        return sum(end - start for start, end in self.of(*terms))

    @property
    def has_advantage(self) -> bool:
        """True if the advantage is not 0 throughout."""
        return bool(self.advantage.any()) if isinstance(self.advantage, torch.Tensor) else self.advantage != 0.0

    def judged_by(self, name: str, log_probs: torch.Tensor) -> TrainSequence:
        """The same with the log-probs [response tokens] of a judge."""
        if name == START:
            return replace(self, reference_log_probs=log_probs)
        return replace(self, judged={**self.judged, name: log_probs})

    def recorded(self, term: str) -> bool:
        """True if the sampler wrote all tokens of `term`, and its log-probs of them are here."""
        values = self.rollout_log_probs
        return values is not None and not any(bool(values[start:end].isnan().any()) for start, end in self.of(term))

    @property
    def measured(self) -> tuple[tuple[int, int], ...]:
        """Tokens that the current prompt's sampler recorded log-probs of: sampler and learner can be compared there."""
        sample = self.sample
        known = sample is not None and sample.rollout is not None and sample.logprobs is not None
        return sample.spans(ON_POLICY) if known and sample is not None else ()


def train_sequences(
    batch: GuidedBatch,
    step: int,
    config: ObjectiveConfig,
    needs: frozenset[str] = frozenset(),
    old: Mapping[tuple[bytes, bytes], LogProbs] = NONE_KNOWN,
) -> list[TrainSequence]:
    """The samples of `batch` as the objective sees them, question by question, then those of other questions.

    A rollout of an older policy (sampled ahead) is weighed against the log-probs that were recorded when it was
    sampled; for one of the current policy the learner's own count (see `old_policy.py`). `needs` names what the losses
    read of "rollout" and "behaviour"; `old` are log-probs under π_old that are known already.
    """
    sequences = []
    for number, question in enumerate(batch.questions):
        for group in question.groups:
            for sample, advantage in zip(group.samples, group.advantages, strict=True):
                sequences.append(_sequence(sample, number, step, config, needs, old, advantage=advantage))
        for sample in (*question.extra, *question.answers):
            sequences.append(_sequence(sample, number, step, config, needs, old, extra=True))
    uids = dict.fromkeys(sample.question.uid for sample in batch.extra)
    numbers = {uid: len(batch.questions) + i for i, uid in enumerate(uids)}
    return sequences + [
        _sequence(sample, numbers[sample.question.uid], step, config, needs, old, extra=True, foreign=True)
        for sample in batch.extra
    ]


def _sequence(
    sample: Sample,
    number: int,
    step: int,
    config: ObjectiveConfig,
    needs: frozenset[str],
    old: Mapping[tuple[bytes, bytes], LogProbs],
    *,
    advantage: float | torch.Tensor = 0.0,
    extra: bool = False,
    foreign: bool = False,
) -> TrainSequence:
    known = None if sample.logprobs is None else tensor_of(sample.logprobs)
    own = _sampled(sample, known)
    stale = is_stale(sample, step)
    pair = TokenPair(sample.prompt_token_ids, sample.token_ids)
    computed = old.get(pair.key) if old else None
    return TrainSequence(
        pair=pair,
        group=number,
        spans=_spans(sample, config, extra=extra),
        advantage=advantage,
        sample=sample,
        foreign=foreign,
        stale=stale,
        old_log_probs=known if stale else None if computed is None else tensor_of(computed),
        rollout_log_probs=own if "rollout" in needs else None,
        behaviour_log_probs=known if "behaviour" in needs else None,
    )


def is_stale(sample: Sample, step: int) -> bool:
    """True for a plain rollout of an older policy than that of `step` whose log-probs were recorded."""
    plain = sample.rollout is not None and sample.logprobs is not None and sample.selection is None
    return plain and sample.rollout is not None and sample.rollout.policy_version < step - 1


def _sampled(sample: Sample, known: torch.Tensor | None) -> torch.Tensor | None:
    """Of the log-probs `known` those of tokens that the sampler wrote; in a response that a teacher began NaN
    elsewhere."""
    if sample.rollout is None or known is None or sample.selection is None:
        return known if sample.rollout is not None else None
    own = torch.full_like(known, torch.nan)
    for start, end in sample.spans(ON_POLICY):
        own[start:end] = known[start:end]
    return own


def _spans(sample: Sample, config: ObjectiveConfig, *, extra: bool) -> tuple[Span, ...]:
    """What trains which tokens. What has no verdict is masked, truncated students' tokens where the config says so."""
    if not sample.verified:
        return ()
    hidden = {ON_POLICY} if config.on_policy.mask_truncated and sample.truncated else set[str]()
    names = dict.fromkeys(term for term, _ in sample.segments if term is not None and term not in hidden)
    spans = [(name, start, end) for name in names for start, end in sample.spans(name)]
    if not extra and sample.rollout is not None:
        own = [(start, end) for name, start, end in spans if name == ON_POLICY]
        for name, term in config.auxiliary.items():
            if term.samples == "rollouts" or (term.samples == "correct" and sample.grade.correct):
                spans += [(name, start, end) for start, end in own]
    return tuple(spans)


def minibatches(sequences: Sequence[TrainSequence], questions: int) -> list[list[int]]:
    """Indices of the sequences of each mini-batch: at most `questions` of the batch's questions each, in as few as that
    takes, and their numbers differ by at most one. Samples of other questions are dealt out among them."""
    numbers = {sequence.group for sequence in sequences}
    batch = {sequence.group for sequence in sequences if not sequence.foreign} or numbers
    count = -(-len(batch) // questions)
    place = {number: i for i, number in enumerate(sorted(numbers))}
    return [[i for i, s in enumerate(sequences) if place[s.group] % count == number] for number in range(count)]
