"""Samples in segments against the equations written out with plain numbers, in float64."""

from __future__ import annotations

import importlib.util
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ampo_registry.tokens import TokenIds

from ampo_core.learner.packing import TokenPair
from ampo_core.loop.minibatch_loss import MiniBatchLoss
from ampo_core.loop.sequences import Span, TrainSequence, minibatches

_spec = importlib.util.spec_from_file_location("objectives", Path(__file__).parent / "objectives.py")
assert _spec is not None
assert _spec.loader is not None
objectives = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(objectives)
make_objective, run = objectives.make_objective, objectives.run

ON, OFF, SFT = "on_policy", "off_policy", "sft"
AUXILIARY = {"auxiliary": {SFT: {"loss": "nll", "weight": 0.3}}}


@dataclass(frozen=True)
class Batch:
    """Sequences with their log-probs and entropies, which are leaves."""

    sequences: list[TrainSequence]
    log_probs: list[torch.Tensor]
    entropies: list[torch.Tensor]

    def without(self, *left_out: int) -> Batch:
        """The same without some of its sequences; the leaves are shared."""
        kept = [i for i in range(len(self.sequences)) if i not in left_out]
        return Batch(*([part[i] for i in kept] for part in (self.sequences, self.log_probs, self.entropies)))


def made(segments: Sequence[tuple[str | None, int]], group: int, rng: random.Random, **options: Any) -> Any:
    """A sequence of `segments`, and its log-probs and entropies."""
    length = sum(count for _, count in segments)
    spans: list[Span] = []
    start = 0
    for term, count in segments:
        spans += [(term, start, start + count)] if term else []
        start += count

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.tensor([rng.uniform(low, high) for _ in range(length)], dtype=torch.float64)

    sequence = TrainSequence(
        TokenPair(TokenIds([0]), TokenIds([1] * length)),
        group,
        tuple(spans),
        rng.uniform(-2, 2),
        old_log_probs=draw(-3, -0.1),
        reference_log_probs=draw(-3, -0.1),
        **options,
    )
    return sequence, draw(-3, -0.1).requires_grad_(True), draw(0, 2).requires_grad_(True)


SEGMENTS: list[tuple[int, list[tuple[str | None, int]], bool]] = [
    (0, [(ON, 5)], False),
    (0, [(OFF, 3), (ON, 4)], False),
    (0, [(OFF, 6)], False),
    (0, [(None, 2), (ON, 3)], False),
    (1, [(ON, 2), (None, 4), (ON, 1)], False),
    (1, [(OFF, 2), (ON, 7), (OFF, 1)], False),
    (1, [(SFT, 3), (ON, 2)], False),
    (2, [(ON, 4)], False),
    (2, [(SFT, 5)], False),
    (3, [(SFT, 2)], True),
    (4, [(SFT, 1), (None, 3)], True),
]


def mixed(seed: int = 0) -> Batch:
    """Three questions: prefixes, contexts, terms that take turns; extra samples of theirs and of two others."""
    rng = random.Random(seed)
    rows = [made(segments, group, rng, foreign=foreign) for group, segments, foreign in SEGMENTS]
    return Batch(*(list(part) for part in zip(*rows, strict=True)))


def token_loss(term: str, sequence: TrainSequence, t: int, log_prob: float, kl: float) -> float:
    if term == SFT:
        return -log_prob
    if term == OFF:
        return -math.exp(log_prob) / (math.exp(log_prob) + 0.1) * sequence.advantage
    assert sequence.old_log_probs is not None
    assert sequence.reference_log_probs is not None
    ratio = math.exp(log_prob - float(sequence.old_log_probs[t]))
    clipped = min(max(ratio, 0.8), 1.2)
    x = math.exp(float(sequence.reference_log_probs[t]) - log_prob)
    return -min(ratio * sequence.advantage, clipped * sequence.advantage) + kl * (x - 1 - math.log(x))


def written_out(batch: Batch, scope: str, weight: str, entropy: float, kl: float) -> float:
    """The loss token by token: on-policy and supervised tokens are averaged over tokens, the teachers' by sequence."""
    rows = list(zip(batch.sequences, [p.tolist() for p in batch.log_probs], strict=True))
    questions = sorted({s.group for s, _ in rows if not s.foreign})
    scopes = [[r for r in rows if r[0].group == g] for g in sorted({s.group for s, _ in rows})]
    total = 0.0
    for members in scopes if scope == "group" else [rows]:
        tokens = {
            term: [[t for name, a, b in s.spans if name == term for t in range(a, b)] for s, _ in members]
            for term in (ON, OFF, SFT)
        }
        count = {term: sum(map(len, found)) for term, found in tokens.items()}
        holders = {term: sum(map(bool, found)) for term, found in tokens.items()}
        for term in (ON, OFF, SFT):
            share = 0.3
            if term != SFT and count[ON] + count[OFF]:
                share = {
                    "unit": 1.0,
                    "proportional": holders[term] / (holders[ON] + holders[OFF]),
                    "token_share": count[term] / (count[ON] + count[OFF]),
                }[weight]
            for (s, p), own in zip(members, tokens[term], strict=True):
                for t in own:
                    w = 1 / holders[term] / len(own) if term == OFF else 1 / count[term]
                    total += share * w * token_loss(term, s, t, p[t], kl) / (len(questions) if scope == "group" else 1)
    values = [
        h[t]
        for s, h in zip(batch.sequences, [h.tolist() for h in batch.entropies], strict=True)
        for name, a, b in s.spans
        if name in (ON, OFF)
        for t in range(a, b)
    ]
    return total - entropy * sum(values) / len(values)


def options(scope: str, weight: str, entropy: float = 0.0, kl: float = 0.0) -> dict[str, Any]:
    block = {"scope": scope, "on_policy": {"weight": weight}, "off_policy": {"weight": weight}, **AUXILIARY}
    return {**block, "entropy_coefficient": entropy, "kl": {"coefficient": kl} if kl else None}


@pytest.mark.parametrize("scope", ["group", "batch"])
@pytest.mark.parametrize("weight", ["unit", "proportional", "token_share"])
@pytest.mark.parametrize(("entropy", "kl"), [(0.0, 0.0), (0.01, 0.05)])
def test_the_loss_of_mixed_samples_is_the_equations_written_out(
    scope: str, weight: str, entropy: float, kl: float
) -> None:
    batch = mixed()
    objective = make_objective(options(scope, weight, entropy, kl))
    loss, grads = run(objective, batch.sequences, batch.log_probs, batch.entropies)
    assert loss == pytest.approx(written_out(batch, scope, weight, entropy, kl), rel=1e-12)
    for row in (1, 4, 5, 6, 9):
        for t in range(len(grads[row])):
            values = []
            for sign in (1, -1):
                moved = [part.detach().clone() for part in batch.log_probs]
                moved[row][t] += sign * 1e-6
                values.append(written_out(replace(batch, log_probs=moved), scope, weight, entropy, kl))
            assert float(grads[row][t]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("scope", ["group", "batch"])
def test_a_prefix_of_a_teacher_is_its_tokens_in_its_term_and_the_student_s_in_its_own(scope: str) -> None:
    """One question, one sample of three teacher tokens and two of the student, and a plain one of four."""
    rng = random.Random(1)
    (prefixed, own, _), (plain, other, _) = made([(OFF, 3), (ON, 2)], 0, rng), made([(ON, 4)], 0, rng)
    objective = make_objective({"scope": scope})
    loss, grads = run(objective, [prefixed, plain], [own, other])
    mine, others = own.tolist(), other.tolist()
    by_hand = sum(token_loss(OFF, prefixed, t, mine[t], 0.0) for t in range(3)) / 3
    by_hand += sum(token_loss(ON, prefixed, t, mine[t], 0.0) for t in (3, 4)) / 6
    by_hand += sum(token_loss(ON, plain, t, others[t], 0.0) for t in range(4)) / 6
    assert loss == pytest.approx(by_hand, rel=1e-12)
    probability = math.exp(mine[0])
    slope = -prefixed.advantage / 3 * 0.1 * probability / (probability + 0.1) ** 2
    assert float(grads[0][0]) == pytest.approx(slope, rel=1e-9)


@pytest.mark.parametrize("scope", ["group", "batch"])
@pytest.mark.parametrize("weight", ["unit", "proportional", "token_share"])
def test_context_is_in_no_loss_denominator_or_gradient(scope: str, weight: str) -> None:
    batch = mixed()
    objective = make_objective(options(scope, weight, 0.01, 0.05))
    loss, grads = run(objective, batch.sequences, batch.log_probs, batch.entropies)
    cut: list[Any] = []
    for s, p, h in zip(batch.sequences, batch.log_probs, batch.entropies, strict=True):
        kept = sorted(t for _, a, b in s.spans for t in range(a, b))
        place = {t: i for i, t in enumerate(kept)}
        spans = tuple((name, place[a], place[b - 1] + 1) for name, a, b in s.spans)
        known = {name: getattr(s, name)[kept] for name in ("old_log_probs", "reference_log_probs")}
        pair = TokenPair(s.pair.prompt_token_ids, TokenIds([1] * len(kept)))
        leaves = [part.detach()[kept].requires_grad_(True) for part in (p, h)]
        cut.append((replace(s, spans=spans, pair=pair, **known), *leaves, kept))
    short, short_grads = run(objective, *([row[i] for row in cut] for i in range(3)))
    assert short == pytest.approx(loss, rel=1e-14)
    for grad, other, (_, _, _, kept) in zip(grads, short_grads, cut, strict=True):
        torch.testing.assert_close(grad[kept], other, rtol=1e-12, atol=0.0)
        assert grad.count_nonzero() <= len(kept)
        assert not torch.isin(torch.arange(len(grad))[grad != 0], torch.tensor(kept), invert=True).any()


@pytest.mark.parametrize("scope", ["group", "batch"])
def test_packing_order_split_and_group_order_change_nothing_for_mixed_samples(scope: str) -> None:
    batch = mixed(seed=7)
    objective = make_objective(options(scope, "proportional", 0.01, 0.05))
    loss, grads = run(objective, batch.sequences, batch.log_probs, batch.entropies)
    rng = random.Random(0)
    for _ in range(5):
        order = list(range(len(batch.sequences)))
        rng.shuffle(order)
        cuts = sorted(rng.sample(range(1, len(order)), 3))
        split = [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)], strict=True)]
        other, other_grads = run(objective, batch.sequences, batch.log_probs, batch.entropies, split)
        assert other == pytest.approx(loss, rel=1e-12)
        for grad, other_grad in zip(grads, other_grads, strict=True):
            torch.testing.assert_close(grad, other_grad, rtol=1e-10, atol=1e-14)
    renamed = [replace(s, group=9 - s.group) for s in reversed(batch.sequences)]
    moved, moved_grads = run(objective, renamed, batch.log_probs[::-1], batch.entropies[::-1])
    assert moved == pytest.approx(loss, rel=1e-12)
    for grad, moved_grad in zip(grads, reversed(moved_grads), strict=True):
        torch.testing.assert_close(grad, moved_grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("loss", ["gspo", "cispo", "policy_gradient"])
def test_a_loss_of_whole_sequences_is_the_same_however_mixed_samples_are_split(loss: str) -> None:
    batch = mixed(seed=2)
    objective = make_objective({"on_policy": {"loss": loss, "aggregator": "seq"}, "off_policy": {"loss": loss}})
    whole, grads = run(objective, batch.sequences, batch.log_probs)
    split = [[4, 0], [10, 1, 2, 8], [3, 9, 5], [6, 7]]
    parts, other = run(objective, batch.sequences, batch.log_probs, split=split)
    assert parts == pytest.approx(whole, rel=1e-12)
    for grad, moved in zip(grads, other, strict=True):
        torch.testing.assert_close(grad, moved, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("scope", ["group", "batch"])
def test_extra_samples_change_no_other_term(scope: str) -> None:
    """Extra samples of question 2, and of two questions that are not of the batch."""
    batch, extra = mixed(), (8, 9, 10)
    objective = make_objective({**options(scope, "token_share", 0.01, 0.05)})
    with_them, without = (
        MiniBatchLoss(objective, b.sequences, range(len(b.sequences))) for b in (batch, batch.without(*extra))
    )
    for loss, b in ((with_them, batch), (without, batch.without(*extra))):
        loss(list(range(len(b.sequences))), b.log_probs, b.entropies)
    for name in (f"loss/{ON}", f"loss/{OFF}"):
        assert with_them.sums()[name] == pytest.approx(without.sums()[name], rel=1e-14)
    for name in (ON, OFF):
        torch.testing.assert_close(
            objective.weights(batch.sequences)[name][:8], objective.weights(batch.without(*extra).sequences)[name]
        )
        assert with_them.tokens[name] == without.tokens[name]
    tokens = {6: 3, 8: 5, 9: 2, 10: 1}
    nll = {i: -sum(batch.log_probs[i].tolist()[:n]) for i, n in tokens.items()}
    by_hand = sum(nll[i] / n for i, n in tokens.items()) / 3 if scope == "group" else sum(nll.values()) / 11
    assert with_them.sums()[f"loss/{SFT}"] == pytest.approx(0.3 * by_hand, rel=1e-12)


def test_a_term_s_own_weight_is_divided_by_the_batch_s_questions_of_the_mini_batch() -> None:
    batch = mixed()
    found = minibatches(batch.sequences, 2)
    assert [sorted({batch.sequences[i].group for i in members}) for members in found] == [[0, 2, 4], [1, 3]]
    objective = make_objective({"scope": "group", **AUXILIARY})
    for members, questions in zip(found, (2, 1), strict=True):
        sequences = [batch.sequences[i] for i in members]
        for sequence, weight in zip(sequences, objective.weights(sequences)[SFT].tolist(), strict=True):
            tokens = sum(s.tokens(SFT) for s in sequences if s.group == sequence.group)
            assert weight == pytest.approx(0.3 / tokens / questions if sequence.tokens(SFT) else 0.0)


def test_entropy_is_of_the_two_main_terms_alone() -> None:
    batch = mixed()
    objective = make_objective(options("batch", "unit", 0.5))
    loss = MiniBatchLoss(objective, batch.sequences, range(len(batch.sequences)))
    total = loss(list(range(len(batch.sequences))), batch.log_probs, batch.entropies)
    found = torch.autograd.grad(total, batch.entropies)
    tokens = sum(s.tokens(ON, OFF) for s in batch.sequences)
    for sequence, grad in zip(batch.sequences, found, strict=True):
        expected = torch.zeros_like(grad)
        for start, end in sequence.of(ON, OFF):
            expected[start:end] = -0.5 / tokens
        torch.testing.assert_close(grad, expected)
