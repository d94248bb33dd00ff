"""What no golden file covers: several groups, both scopes, term weights, entropy, KL; and that packing is neutral."""

from __future__ import annotations

import importlib.util
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ampo_core.loop.minibatch_loss import MiniBatchLoss, kl_estimates
from ampo_core.loop.sequences import TrainSequence

_spec = importlib.util.spec_from_file_location("objectives", Path(__file__).parent / "objectives.py")
assert _spec is not None
assert _spec.loader is not None
objectives = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(objectives)
make_objective, run, is_off_policy = objectives.make_objective, objectives.run, objectives.is_off_policy

IDENTITY = {"type": "shaped", "shaping": "identity"}
Batch = tuple[list[TrainSequence], list[torch.Tensor], list[torch.Tensor]]


def random_batch(seed: int, questions: int = 4, group: int = 5) -> Batch:
    """Groups of uneven lengths; question 0 has no teacher answer, the others one, two, three."""
    rng = random.Random(seed)
    sequences, log_probs, entropies = [], [], []
    for question in range(questions):
        for slot in range(group):
            length = rng.randint(1, 9)
            off_policy = slot < question
            draw = lambda low, high, n=length: torch.tensor(  # noqa: E731
                [rng.uniform(low, high) for _ in range(n)], dtype=torch.float64
            )
            sequences.append(
                objectives.sequence(
                    length,
                    group=question,
                    advantage=rng.uniform(-2, 2),
                    off_policy=off_policy,
                    old_log_probs=None if off_policy else draw(-3, -0.1),
                    reference_log_probs=None if off_policy else draw(-3, -0.1),
                )
            )
            log_probs.append(draw(-3, -0.1).requires_grad_(True))
            entropies.append(draw(0, 2).requires_grad_(True))
    return sequences, log_probs, entropies


def on_token(sequence: TrainSequence, t: int, log_prob: float) -> float:
    ratio = math.exp(log_prob - float(sequence.old_log_probs[t]))
    clipped = min(max(ratio, 0.8), 1.2)
    return -min(ratio * sequence.advantage, clipped * sequence.advantage)


def off_token(sequence: TrainSequence, log_prob: float) -> float:
    probability = math.exp(log_prob)
    return -probability / (probability + 0.1) * sequence.advantage


def transcription(batch: Batch, scope: str, weight: str, entropy: float, kl: float) -> float:
    """The loss written out token by token from the equations, with plain numbers."""
    sequences, log_probs, entropies = batch
    rows = list(zip(sequences, [p.tolist() for p in log_probs], [h.tolist() for h in entropies], strict=True))
    names = sorted({s.group for s in sequences})
    scopes = [[row for row in rows if row[0].group == name] for name in names] if scope == "group" else [rows]
    total = 0.0
    for members in scopes:
        on = [row for row in members if not is_off_policy(row[0])]
        off = [row for row in members if is_off_policy(row[0])]
        on_tokens = sum(len(p) for _, p, _ in on)
        share = {"unit": (1.0, 1.0), "proportional": (len(on) / len(members), len(off) / len(members))}
        all_tokens = sum(len(p) for _, p, _ in members)
        share["token_share"] = (on_tokens / all_tokens, 1 - on_tokens / all_tokens)
        on_share, off_share = share[weight]
        value = 0.0
        for s, p, _ in on:
            for t, log_prob in enumerate(p):
                x = math.exp(float(s.reference_log_probs[t]) - log_prob)
                value += on_share / on_tokens * (on_token(s, t, log_prob) + kl * (x - 1 - math.log(x)))
        for s, p, _ in off:
            value += off_share / len(off) / len(p) * sum(off_token(s, log_prob) for log_prob in p)
        total += value / len(scopes)
    return total - entropy * sum(sum(h) for _, _, h in rows) / sum(len(h) for _, _, h in rows)


@pytest.mark.parametrize("scope", ["group", "batch"])
@pytest.mark.parametrize("weight", ["unit", "proportional", "token_share"])
@pytest.mark.parametrize(("entropy", "kl"), [(0.0, 0.0), (0.01, 0.0), (0.01, 0.05)])
def test_the_loss_is_the_transcribed_equations(scope: str, weight: str, entropy: float, kl: float) -> None:
    batch = random_batch(seed=3)
    objective = make_objective(options(scope, weight, entropy, kl))
    loss, _ = run(objective, *batch)
    assert loss == pytest.approx(transcription(batch, scope, weight, entropy, kl), rel=1e-12)


def options(scope: str, weight: str, entropy: float, kl: float) -> dict[str, Any]:
    return {
        "scope": scope,
        "on_policy": {"weight": weight},
        "off_policy": {"weight": weight},
        "entropy_coefficient": entropy,
        "kl": {"coefficient": kl, "estimator": "k3"} if kl else None,
    }


@pytest.mark.parametrize("scope", ["group", "batch"])
def test_gradients_are_the_finite_differences_of_the_transcription(scope: str) -> None:
    sequences, log_probs, entropies = random_batch(seed=5, questions=3, group=3)
    objective = make_objective(options(scope, "proportional", 0.01, 0.05))
    _, grads = run(objective, sequences, log_probs, entropies)
    step = 1e-6
    for row, t in [(0, 0), (3, 0), (4, 0), (8, 0)]:
        values = []
        for sign in (1, -1):
            moved = [part.detach().clone() for part in log_probs]
            moved[row][t] += sign * step
            values.append(transcription((sequences, moved, entropies), scope, "proportional", 0.01, 0.05))
        assert float(grads[row][t]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("scope", ["group", "batch"])
def test_packing_order_split_and_group_order_change_nothing(scope: str) -> None:
    sequences, log_probs, entropies = random_batch(seed=7)
    objective = make_objective(options(scope, "proportional", 0.01, 0.05))
    loss, grads = run(objective, sequences, log_probs, entropies)
    rng = random.Random(0)
    for _ in range(5):
        order = list(range(len(sequences)))
        rng.shuffle(order)
        cuts = sorted(rng.sample(range(1, len(order)), 3))
        split = [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)], strict=True)]
        other, other_grads = run(objective, sequences, log_probs, entropies, split)
        assert other == pytest.approx(loss, rel=1e-12)
        for grad, other_grad in zip(grads, other_grads, strict=True):
            torch.testing.assert_close(grad, other_grad, rtol=1e-10, atol=1e-14)

    renamed = [replace(s, group=7 - s.group) for s in reversed(sequences)]
    moved, moved_grads = run(objective, renamed, log_probs[::-1], entropies[::-1])
    assert moved == pytest.approx(loss, rel=1e-12)
    for grad, moved_grad in zip(grads, reversed(moved_grads), strict=True):
        torch.testing.assert_close(grad, moved_grad, rtol=1e-10, atol=1e-14)


def test_without_teachers_the_objective_is_grpo_and_a_teacher_answer_does_not_change_the_on_policy_term() -> None:
    sequences, log_probs, _ = random_batch(seed=1, questions=1)
    objective = make_objective({"scope": "group"})
    loss, _ = run(objective, sequences, log_probs)
    tokens = sum(len(p) for p in log_probs)
    by_hand = sum(
        on_token(s, t, value) / tokens
        for s, p in zip(sequences, log_probs, strict=True)
        for t, value in enumerate(p.tolist())
    )
    assert loss == pytest.approx(by_hand, rel=1e-12)
    teacher = objectives.sequence(2, 0, 1.0, True)
    both, _ = run(objective, [*sequences, teacher], [*log_probs, torch.zeros(2, dtype=torch.float64).requires_grad_()])
    assert both == pytest.approx(loss - 1 / 1.1, rel=1e-12)


def test_skipping_sequences_without_advantage_keeps_the_gradient() -> None:
    sequences, log_probs, _ = random_batch(seed=2)
    sequences = [replace(s, advantage=0.0) if i % 3 == 0 else s for i, s in enumerate(sequences)]
    plain = make_objective({"scope": "batch"})
    kept = plain.trained(sequences)
    assert kept == [i for i in range(len(sequences)) if i % 3]
    full_loss, full = run(plain, sequences, log_probs)
    part_loss, part = run(plain, sequences, log_probs, split=[kept])
    assert part_loss == pytest.approx(full_loss, rel=1e-12)
    for grad, other in zip(full, part, strict=True):
        torch.testing.assert_close(grad, other)
    for needed in ({"entropy_coefficient": 0.1}, {"kl": {"coefficient": 0.1}}):
        assert make_objective(needed).trained(sequences) == list(range(len(sequences)))


def test_masked_sequences_are_in_neither_loss_nor_denominators() -> None:
    sequences, log_probs, _ = random_batch(seed=4)
    masked = [replace(s, spans=()) if i == 2 else s for i, s in enumerate(sequences)]
    objective = make_objective({"scope": "batch"})
    assert all(values[2] == 0.0 for values in objective.weights(masked).values())
    assert 2 not in objective.trained(masked)
    without = [s for i, s in enumerate(sequences) if i != 2]
    rest = [i for i in range(len(sequences)) if i != 2]
    for name, values in objective.weights(without).items():
        torch.testing.assert_close(objective.weights(masked)[name][rest], values)
    assert run(objective, masked, log_probs, split=[rest])[0] == pytest.approx(
        run(objective, without, [log_probs[i] for i in rest])[0], rel=1e-12
    )


def test_missing_log_probs_are_an_error_and_never_probability_one() -> None:
    sequences, log_probs, _ = random_batch(seed=4)
    without_old = [replace(s, old_log_probs=None) for s in sequences]
    with pytest.raises(ValueError, match="without old_log_probs"):
        run(make_objective({}), without_old, log_probs)
    without_reference = [replace(s, reference_log_probs=None) for s in sequences]
    with pytest.raises(ValueError, match="without reference_log_probs"):
        run(make_objective({"kl": {"coefficient": 0.1}}), without_reference, log_probs)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_kl_estimators_agree_to_first_order(estimator: str) -> None:
    own = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(kl_estimates(own, own, estimator), torch.zeros(2, dtype=torch.float64))
    x = {"k2": 0.1**2 / 2, "k3": math.exp(-0.1) + 0.1 - 1}[estimator]
    assert float(kl_estimates(own, own - 0.1, estimator)[0]) == pytest.approx(x)


def test_a_token_that_its_teacher_found_very_unlikely_stays_finite() -> None:
    sequences, log_probs, _ = random_batch(seed=3)
    objective = make_objective({"off_policy": {"loss": {**IDENTITY, "behaviour_policy": "recorded"}}})

    def recorded(log_prob: float) -> list[TrainSequence]:
        return [
            replace(s, behaviour_log_probs=torch.full((s.length,), log_prob)) if is_off_policy(s) else s
            for s in sequences
        ]

    results = [run(objective, recorded(log_prob), log_probs) for log_prob in (-1e3, -30.0)]
    for value, gradients in results:
        assert math.isfinite(value)
        assert all(gradient.isfinite().all() for gradient in gradients)
    assert results[0][0] == results[1][0]


def test_the_gradient_of_k2_is_that_of_the_kl_and_of_k3_that_of_the_reverse_kl() -> None:
    reference = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64).log()
    logits = torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64, requires_grad=True)
    own = logits.log_softmax(0)
    divergences = {
        "k2": (own.exp() * (own - reference)).sum(),
        "k3": (reference.exp() * (reference - own)).sum(),
    }
    for estimator, divergence in divergences.items():
        # a loss follows the gradient of the estimate at tokens that the policy itself drew
        estimate = (own.exp().detach() * kl_estimates(own, reference, estimator)).sum()
        (found,) = torch.autograd.grad(estimate, logits, retain_graph=True)
        (wanted,) = torch.autograd.grad(divergence, logits, retain_graph=True)
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("scope", ["group", "batch"])
def test_importance_weights_are_truncated_and_leave_teachers_alone(scope: str) -> None:
    sequences, log_probs, _ = random_batch(seed=3)
    objective = make_objective({"scope": scope, "on_policy": {"importance_cap": 1.5}})
    plain = make_objective({"scope": scope})
    shifts = [0.3 if i % 2 else -0.2 for i in range(len(sequences))]  # log π_old − log π_rollout
    recorded = [
        s if is_off_policy(s) else replace(s, rollout_log_probs=s.old_log_probs - shift)
        for s, shift in zip(sequences, shifts, strict=True)
    ]
    _, expected = run(plain, sequences, log_probs)
    _, found = run(objective, recorded, log_probs)
    for sequence, shift, grad, other in zip(sequences, shifts, found, expected, strict=True):
        weight = 1.0 if is_off_policy(sequence) else min(math.exp(shift), 1.5)
        torch.testing.assert_close(grad, weight * other)
    capped = make_objective({"scope": scope, "on_policy": {"importance_cap": 1.1}})
    _, cut = run(capped, recorded, log_probs)
    for sequence, shift, grad, other in zip(sequences, shifts, cut, expected, strict=True):
        weight = 1.0 if is_off_policy(sequence) else min(math.exp(shift), 1.1)
        torch.testing.assert_close(grad, weight * other)


def test_the_first_forward_is_its_own_old_policy() -> None:
    sequences, log_probs, _ = random_batch(seed=5)
    known = [
        s if is_off_policy(s) else replace(s, old_log_probs=p.detach())
        for s, p in zip(sequences, log_probs, strict=True)
    ]
    unknown = [replace(s, old_log_probs=None) for s in sequences]
    objective = make_objective({"on_policy": {"importance_cap": 2.0}})
    sampled = [
        s if is_off_policy(s) else replace(s, rollout_log_probs=p.detach() - 0.1)
        for s, p in zip(known, log_probs, strict=True)
    ]
    fresh = [replace(s, old_log_probs=None) for s in sampled]
    expected, gradients = run(objective, sampled, log_probs)
    loss = MiniBatchLoss(objective, fresh, range(len(fresh)), first=True)
    found = loss(list(range(len(fresh))), log_probs, [])
    assert found.item() == pytest.approx(expected, rel=1e-12)
    for mine, other in zip(torch.autograd.grad(found, log_probs), gradients, strict=True):
        torch.testing.assert_close(mine, other)
    assert loss.sums()["importance"] / loss.weighed_tokens == pytest.approx(math.exp(0.1))
    assert all(torch.equal(loss.forwarded[i][0], part.detach()) for i, part in enumerate(log_probs))
    with pytest.raises(ValueError, match="without old_log_probs"):
        run(objective, unknown, log_probs)


def one(advantage: float, ratios: list[float], *, off_policy: bool = False) -> tuple[TrainSequence, torch.Tensor]:
    """A sequence with tokens whose π_θ / π_old (off-policy: whose π_θ) are `ratios`."""
    log_probs = torch.tensor(ratios, dtype=torch.float64).log().requires_grad_(True)
    old = None if off_policy else torch.zeros(len(ratios), dtype=torch.float64)
    return objectives.sequence(len(ratios), 0, advantage, off_policy, old_log_probs=old), log_probs


@pytest.mark.parametrize(
    ("options", "advantage", "off_policy", "per_token"),
    [
        ({}, 1.0, False, [-0.5, -1.0, -1.2]),
        ({}, -1.0, False, [0.8, 1.0, 1.5]),
        ({"on_policy": {"loss": {"type": "clip", "low": None, "high": None}}}, -1.0, False, [0.5, 1.0, 1.5]),
        ({"on_policy": {"loss": {"type": "clip", "dual": 1.3}}}, -1.0, False, [0.8, 1.0, 1.3]),
        ({"on_policy": {"loss": {"type": "clip", "dual": 1.3}}}, 1.0, False, [-0.5, -1.0, -1.2]),
        (
            {"off_policy": {"loss": {**IDENTITY, "clip": [0.2, 0.3]}}},
            1.0,
            True,
            [-0.5, -1.0, -1.3],
        ),
        (
            {"off_policy": {"loss": {**IDENTITY, "clip": [0.2, 0.3]}}},
            -1.0,
            True,
            [0.8, 1.0, 1.5],
        ),
    ],
)
def test_clips_bound_what_an_update_can_gain(
    options: dict[str, Any], advantage: float, off_policy: bool, per_token: list[float]
) -> None:
    """For each of the ratios 0.5, 1 and 1.5 by itself; ε = 0.2."""
    for ratio, expected in zip([0.5, 1.0, 1.5], per_token, strict=True):
        sequence, log_probs = one(advantage, [ratio], off_policy=off_policy)
        assert run(make_objective(options), [sequence], [log_probs])[0] == pytest.approx(expected)


def test_terms_have_weights_of_their_own() -> None:
    mine, own = one(1.0, [1.0, 1.0])
    teacher, theirs = one(1.0, [0.5], off_policy=True)
    options = {
        "on_policy": {"weight": 2.0},
        "off_policy": {"weight": 0.25, "loss": IDENTITY},
    }
    objective = make_objective({"scope": "batch", **options})
    assert run(objective, [mine, teacher], [own, theirs])[0] == pytest.approx(-2.0 - 0.25 * 0.5)


def test_what_the_metrics_add_up_comes_from_each_term() -> None:
    mine, own = one(1.0, [1.0, 1.3, 0.5])
    teacher, theirs = one(0.5, [0.5, 0.5], off_policy=True)
    left_out = replace(one(1.0, [1.0] * 4)[0], spans=())
    objective = make_objective({"scope": "batch", "off_policy": {"loss": IDENTITY}})
    loss = MiniBatchLoss(objective, [mine, teacher, left_out], [0, 1])
    total = loss([0, 1], [own, theirs], [])
    on, off = -(1.0 + 1.2 + 0.5) / 3, -0.5 * 0.5
    found = {"clip_fraction/on_policy": 1.0, "loss/on_policy": on, "loss/off_policy": off, "loss": on + off}
    assert loss.sums() == pytest.approx(found)
    assert total.item() == pytest.approx(on + off)
    assert (loss.tokens["on_policy"], loss.weighed_tokens) == (3, 0)
    assert [entropy.numel() for _, entropy in loss.forwarded.values()] == [0, 0]


@pytest.mark.parametrize("missing", ["old_log_probs", "reference_log_probs"])
def test_one_sequence_without_log_probs_among_others_is_an_error(missing: str) -> None:
    sequences, log_probs, _ = random_batch(seed=4)
    assert not is_off_policy(sequences[0])
    some = [replace(sequences[0], **{missing: None}), *sequences[1:]]
    with pytest.raises(ValueError, match=missing):
        run(make_objective({"kl": {"coefficient": 0.1}}), some, log_probs)


@pytest.mark.parametrize("tokens", [0, 1])
def test_entropy_is_a_mean_over_tokens_however_few(tokens: int) -> None:
    sequence, log_probs = one(1.0, [1.0] * tokens)
    entropies = [torch.full((tokens,), 2.0, dtype=torch.float64)]
    objective = make_objective({"scope": "batch", "entropy_coefficient": 0.1})
    loss = MiniBatchLoss(objective, [sequence], [0])
    assert loss([0], [log_probs], entropies).item() == pytest.approx(tokens * (-1.0 - 0.1 * 2.0))


def test_a_sequence_is_fresh_unless_said() -> None:
    assert not objectives.sequence(1, 0, 1.0, False).stale
