"""From samples to terms: what each term trains, when it is forwarded, and which log-probs it reads."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ampo_plugins.schedules.linear import Linear
from ampo_registry import Grade, Guidance, Message, PluginError, Question, Rollout, RunError, Sample, Selection
from ampo_registry.protocols import BuildContext
from ampo_registry.step import StepContext
from ampo_registry.testing import example_step

from ampo_core.checked.call import Asked
from ampo_core.checked.tensors import CheckedLoss
from ampo_core.config.objective import ObjectiveConfig
from ampo_core.distributed.ranks import Ranks
from ampo_core.loop.credit import with_advantages
from ampo_core.loop.groups import AugmentedGroup, GuidedBatch, GuidedQuestion
from ampo_core.loop.minibatch_loss import MiniBatchLoss, term_view
from ampo_core.loop.objective import Objective, ObjectiveParts
from ampo_core.loop.old_policy import check_parity, fill_in, plan_forwards
from ampo_core.loop.sequences import TrainSequence, minibatches, train_sequences

_spec = importlib.util.spec_from_file_location("objectives", Path(__file__).parent / "objectives.py")
assert _spec is not None
assert _spec.loader is not None
objectives = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(objectives)
make_objective, run = objectives.make_objective, objectives.run

ONE = Ranks(0, 1, torch.device("cpu"))
RIGHT, WRONG = Grade(1.0, True, True), Grade(0.1, False, True)
GUIDANCE = Guidance("A", "x", (8, 9, 10), RIGHT, logprobs=(-0.25, -0.5, -0.75))


def question(uid: str) -> Question:
    return Question(uid, (Message("user", uid),), (1, 2), "7", "test")


def plain(uid: str = "q", grade: Grade = RIGHT, reason: Any = "stop", version: int = 0) -> Sample:
    rollout = Rollout((5, 6, 7, 8), (-1.0, -1.1, -1.2, -1.3), "", reason, version)
    return Sample.sampled(question(uid), rollout, grade)


def prefixed(uid: str = "q", grade: Grade = RIGHT, reason: Any = "stop", first: str | None = "off_policy") -> Sample:
    """Two of the teacher's tokens, and three of the student's."""
    return Sample(
        question=question(uid),
        prompt_token_ids=(1, 2),
        token_ids=(8, 9, 5, 6, 7),
        segments=((first, 2), ("on_policy", 3)),
        text="",
        reward=grade.reward,
        grade=grade,
        logprobs=(-0.25, -0.5, -1.0, -1.1, -1.2),
        rollout=Rollout((5, 6, 7), (-1.0, -1.1, -1.2), "", reason, 0),
        selection=Selection(GUIDANCE),
    )


def answer(uid: str = "q", term: str = "off_policy") -> Sample:
    return Sample.answer(question(uid), Selection(GUIDANCE), term=term)


def guided(uid: str, *groups: Sequence[Sample], **more: Any) -> GuidedQuestion:
    return GuidedQuestion(question(uid), tuple(AugmentedGroup(tuple(g), (1.0,) * len(g)) for g in groups), **more)


def sequences_of(
    objective: Objective, *questions: GuidedQuestion, extra: Sequence[Sample] = (), step: int = 1
) -> list[TrainSequence]:
    return train_sequences(GuidedBatch(questions, tuple(extra)), step, objective.config, objective.needs)


def spans(sequences: Sequence[TrainSequence], term: str) -> list[list[tuple[int, int]]]:
    return [sequence.of(term) for sequence in sequences]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ("rollouts", [[(0, 4)], [(0, 4)], [(2, 5)], [], [], []]),
        ("correct", [[(0, 4)], [], [(2, 5)], [], [], []]),
        ("guidance", [[], [], [], [], [(0, 3)], []]),
        ("intervention", [[], [], [], [], [], [(0, 3)]]),
    ],
)
def test_an_auxiliary_term_trains_the_samples_that_it_names(
    samples: str, expected: list[list[tuple[int, int]]]
) -> None:
    objective = make_objective({"auxiliary": {"more": {"samples": samples}}})
    found = guided("q", (plain(), plain(grade=WRONG), prefixed(), answer()))
    given = {"guidance": {"answers": (answer(term="more"),)}, "intervention": {"extra": (answer(term="more"),)}}
    sequences = sequences_of(objective, replace(found, **given.get(samples, {})))
    rows = [row for i, row in enumerate(expected) if i < 4 or row]
    assert spans(sequences, "more") == rows
    assert spans(sequences, "on_policy")[:4] == [[(0, 4)], [(0, 4)], [(2, 5)], []]
    trained = objective.trained([replace(s, advantage=0.0) for s in sequences])
    assert trained == [i for i, row in enumerate(rows) if row]


def test_a_truncated_student_is_masked_and_the_teacher_s_prefix_before_it_is_not() -> None:
    objective = make_objective({"on_policy": {"mask_truncated": True}, "auxiliary": {"more": {"samples": "rollouts"}}})
    sequences = sequences_of(objective, guided("q", (prefixed(reason="length"), plain(reason="length"), prefixed())))
    assert [s.spans for s in sequences] == [
        (("off_policy", 0, 2),),
        (),
        (("off_policy", 0, 2), ("on_policy", 2, 5), ("more", 2, 5)),
    ]
    assert objective.weights(sequences)["on_policy"].tolist() == [0.0, 0.0, pytest.approx(1 / 3)]


def test_a_sample_is_trained_under_its_own_prompt_and_compared_with_no_sampler() -> None:
    hinted = replace(plain(), prompt_token_ids=(1, 2, 3, 4), logprobs=None)
    objective = make_objective({"on_policy": {"importance_cap": 2.0}})
    sequences = sequences_of(objective, guided("q", (hinted, plain())))
    assert [tuple(s.pair.prompt_token_ids) for s in sequences] == [(1, 2, 3, 4), (1, 2)]
    assert [s.measured for s in sequences] == [(), ((0, 4),)]
    log_probs = [torch.full((4,), -1.0 - i, dtype=torch.float64).requires_grad_() for i in range(2)]
    old = [replace(s, old_log_probs=part.detach() - 0.1) for s, part in zip(sequences, log_probs, strict=True)]
    loss, _ = run(objective, old, log_probs)
    ratio = math.exp(0.1)
    sampled = [math.exp(-2.1 + 1.0 + 0.1 * t) for t in range(4)]
    assert loss == pytest.approx(-ratio * (4 + sum(min(w, 2.0) for w in sampled)) / 8, rel=1e-6)


def test_groups_of_any_size_are_compared_alone_and_counted_as_they_are() -> None:
    """A question with two groups beside one with a group of its own size: one scope for each question."""
    objective = make_objective({"scope": "group", "advantage": "mean_only"})
    advantage = objective.config.advantage.build(BuildContext())
    rewards = ((1.0, 0.0, 0.5), (0.2, 0.4), (1.0, 0.0, 0.0, 0.0, 0.0))
    groups = [
        AugmentedGroup(
            tuple(replace(plain(uid, grade=Grade(reward, reward == 1.0, True)), reward=reward) for reward in g)
        )
        for uid, g in zip(("a", "a", "b"), rewards, strict=True)
    ]
    both = [GuidedQuestion(question("a"), tuple(groups[:2])), GuidedQuestion(question("b"), (groups[2],))]
    sequences = sequences_of(objective, *with_advantages(both, advantage, example_step()))
    found = [s.advantage for s in sequences]
    assert found == pytest.approx([0.5, -0.5, 0.0, -0.1, 0.1, 0.8, -0.2, -0.2, -0.2, -0.2])
    assert [s.group for s in sequences] == [0] * 5 + [1] * 5
    assert objective.weights(sequences)["on_policy"].tolist() == pytest.approx([1 / 20 / 2] * 10)
    alone = [replace(both[0], groups=(groups[1],))]
    filtered = sequences_of(objective, *with_advantages(alone, advantage, example_step()))
    assert objective.weights(filtered)["on_policy"].tolist() == pytest.approx([1 / 8] * 2)


def test_samples_of_other_questions_are_numbered_behind_the_batch_s() -> None:
    objective = make_objective({"auxiliary": {"more": {}}})
    extra = [answer(uid, "more") for uid in ("x", "y", "x")]
    sequences = sequences_of(objective, guided("a", (plain("a"),)), guided("b", (plain("b"),)), extra=extra)
    assert [(s.group, s.foreign) for s in sequences] == [(0, False), (1, False), (2, True), (3, True), (2, True)]
    assert minibatches(sequences, 1) == [[0, 2, 4], [1, 3]]
    assert objective.weights(sequences)["more"].tolist() == pytest.approx([0, 0, 1 / 6 / 2, 1 / 3 / 2, 1 / 6 / 2])
    alone = [s for s in sequences if s.foreign]
    assert objective.weights(alone)["more"].tolist() == pytest.approx([1 / 6 / 2, 1 / 3 / 2, 1 / 6 / 2])


def test_the_second_of_two_mini_batches_needs_old_log_probs_of_teachers_under_a_clip() -> None:
    objective = make_objective({"off_policy": {"loss": "clip", "aggregator": "token"}})
    sequences = sequences_of(objective, *(guided(uid, (answer(uid), prefixed(uid))) for uid in ("a", "b")))
    batches = minibatches(sequences, 1)
    plan = plan_forwards(sequences, batches, objective, 1, ONE)
    assert (batches, plan.updates, plan.before) == ([[0, 1], [2, 3]], [[0, 1], [2, 3]], [2, 3])
    log_probs = [torch.full((n,), -1.0, dtype=torch.float64).requires_grad_() for n in (3, 5)]
    second = [sequences[i] for i in batches[1]]
    with pytest.raises(ValueError, match=r"a sequence of .* without old_log_probs"):
        run(objective, second, log_probs)
    moved = {i: (part.detach() - 0.5, part.detach()) for i, part in enumerate(log_probs)}
    assert run(objective, fill_in(second, moved), log_probs)[0] == pytest.approx(-1.2 - 1.2)
    shaped = make_objective({})
    assert plan_forwards(sequences, batches, shaped, 1, ONE).before == [3]


def test_the_sampler_s_log_probs_are_those_of_tokens_that_it_wrote_and_else_the_old_policy_s() -> None:
    objective = make_objective({"on_policy": {"importance_cap": 2.0}, "auxiliary": {"more": {"samples": "rollouts"}}})
    hinted = replace(plain(), prompt_token_ids=(1, 3), logprobs=None)
    replayed = replace(plain("x"), segments=(("more", 4),))
    sequences = sequences_of(objective, guided("q", (prefixed(), hinted)), extra=[replayed])
    mixed, unknown, known = sequences
    assert mixed.rollout_log_probs is not None
    assert mixed.rollout_log_probs.isnan().tolist() == [True, True, False, False, False]
    assert [mixed.recorded(term) for term in ("on_policy", "off_policy")] == [True, False]
    assert [unknown.recorded("on_policy"), known.recorded("more")] == [False, True]
    needs, own = frozenset({"rollout", "old"}), torch.full((5,), -2.0)
    old = torch.arange(5) * -1.0
    view = term_view("off_policy", [(replace(mixed, old_log_probs=old), own.sum(), own, own)], needs, first=False)
    assert view.rollout.tolist() == [0.0, -1.0]
    view = term_view("on_policy", [(replace(mixed, old_log_probs=old), own.sum(), own, own)], needs, first=False)
    assert view.rollout.tolist() == pytest.approx([-1.0, -1.1, -1.2])


class Reads:
    """A loss of its own that reads the sampler's log-probs alone."""

    def __init__(self, given: Any = None) -> None:
        self.given = given

    def token_losses(self, view: Any) -> Any:
        return -view.advantages * (view.log_probs - view.rollout) if self.given is None else self.given(view)


def reading(objective: Objective, needs: frozenset[str], given: Any = None) -> Objective:
    """`objective` with another loss for the student's tokens, which reads `needs`."""

    class Spec:
        zero_without_advantage = False

    Spec.needs = needs  # type: ignore[attr-defined]
    first = replace(
        objective.terms[0], loss=CheckedLoss(Asked(Reads(given), "loss", "reads", "on_policy.loss")), spec=Spec()
    )  # type: ignore[arg-type]
    return replace(objective, terms=(first, *objective.terms[1:]))


def test_a_loss_that_reads_the_sampler_alone_gets_old_log_probs_where_nobody_recorded_any() -> None:
    objective = reading(make_objective({}), frozenset({"rollout"}))
    hinted = replace(plain("b"), prompt_token_ids=(1, 3), logprobs=None)
    sequences = sequences_of(objective, guided("a", (plain("a"),)), guided("b", (hinted, plain("b"))))
    plan = plan_forwards(sequences, [[0], [1, 2]], objective, 1, ONE)
    assert [objective.needs_old(s) for s in sequences] == [False, True, False]
    assert plan.before == [1, 2]  # the second of them is measured in the first step
    assert plan_forwards(sequences, [[0], [1, 2]], objective, 3, ONE).before == [1]


def test_only_what_the_sampler_recorded_under_this_prompt_makes_a_rollout_stale() -> None:
    objective = make_objective({})
    old, hinted = plain(version=1), replace(plain(version=1), logprobs=None)
    mixed = replace(prefixed(), rollout=replace(prefixed().rollout, policy_version=1))
    sequences = sequences_of(objective, guided("q", (old, hinted, mixed)), step=5)
    assert [s.stale for s in sequences] == [True, False, False]
    assert [s.old_log_probs is None for s in sequences] == [False, True, True]
    assert plan_forwards(sequences, [[], [0, 1, 2]], objective, 5, ONE).before == [1, 2]


def test_replayed_rollouts_do_not_silence_the_comparison_of_sampler_and_learner() -> None:
    objective = make_objective({"auxiliary": {"more": {}}})
    replayed = replace(plain("x"), segments=(("more", 4),))
    sequences = sequences_of(objective, guided("q", (plain(version=6),)), extra=[replayed], step=7)
    assert [(s.stale, bool(s.measured)) for s in sequences] == [(False, True), (True, False)]
    with pytest.raises(RunError, match="step 7"):
        check_parity(0.1, 0.05, 7, sequences)
    check_parity(0.1, 0.05, 7, sequences_of(objective, guided("q", (plain(version=5),)), step=7))


def test_log_probs_that_do_not_fit_an_answer_are_those_of_nobody() -> None:
    for recorded in ((-0.5, -0.5), (-0.5,) * 4, None):
        selection = Selection(replace(GUIDANCE, logprobs=recorded))
        assert Sample.answer(question("q"), selection).logprobs is None


def at(options: Mapping[str, Any], step: int, steps: int = 3) -> Objective:
    """The objective of a step of a run."""
    config = ObjectiveConfig.model_validate(
        {"entropy_coefficient": 0.0, **options}, context={"catalog": objectives.plugins().catalog}
    )
    return ObjectiveParts(config, BuildContext(), 7).at(StepContext(step=step, steps=steps))


FALLING = {"type": "linear", "start": 1.0, "end": 0.0}


def test_a_term_whose_weight_falls_to_0_is_not_forwarded_and_read_for_nothing() -> None:
    options = {
        "on_policy": {"weight": FALLING},
        "kl": {},
        "auxiliary": {
            "more": {"loss": {"type": "shaped", "behaviour_policy": "recorded"}, "weight": FALLING},
            "nll": {"samples": "rollouts", "weight": 0},
        },
    }
    sequences = sequences_of(at(options, 1), guided("q", (plain(), answer()), extra=(answer(term="more"),)))
    sequences[2] = replace(sequences[2], advantage=1.0)
    first, middle, last = (at(options, step) for step in (1, 2, 3))
    assert [term.weight for term in middle.terms] == [0.5, "unit", 0.5, 0.0]
    assert [first.trained(sequences), middle.trained(sequences), last.trained(sequences)] == [[0, 1, 2], [0, 1, 2], [1]]
    assert [len(o.needs) for o in (first, middle, last)] == [3, 3, 0]
    assert {name: float(w.sum()) for name, w in last.weights(sequences).items()} == {
        "on_policy": 0.0,
        "off_policy": pytest.approx(1 / 3),
        "more": 0.0,
        "nll": 0.0,
    }
    loss = MiniBatchLoss(last, sequences, [1], first=True)
    loss([0], [torch.full((3,), -1.0).requires_grad_()], [])
    assert "loss/more" not in loss.sums()
    assert loss.tokens["more"] == 3


def test_a_constant_weight_of_0_of_a_main_term_is_still_measured() -> None:
    objective = at({"on_policy": {"weight": 0.0}, "off_policy": {"weight": 0.0}}, 1)
    sequences = sequences_of(objective, guided("q", (plain(), answer())))
    assert objective.trained(sequences) == [0, 1]


def test_entropy_s_coefficient_may_fall_to_0() -> None:
    sequences = sequences_of(at({}, 1), guided("q", (plain(),)))
    still = [replace(s, advantage=0.0) for s in sequences]
    objectives_ = [at({"entropy_coefficient": {**FALLING, "start": 0.1}}, step) for step in (1, 2, 3)]
    assert [o.entropy_coefficient for o in objectives_] == pytest.approx([0.1, 0.05, 0.0])
    assert [o.trained(still) for o in objectives_] == [[0], [0], []]


@pytest.mark.parametrize("value", ["0.5", None, True])
def test_a_schedule_that_gives_no_number_is_named(value: Any) -> None:
    class Odd:
        def value(self, step: int, steps: int, metrics: Any) -> Any:
            return value

    with pytest.raises(PluginError, match=rf"step 3: schedule Odd\.value gave {value!r}; it must give a number"):
        StepContext(step=3).value(Odd())


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_schedule_that_gives_no_weight_stops_the_step_and_names_the_key(value: Any) -> None:
    parts = ObjectiveParts(make_objective({}).config, BuildContext(), 7)

    class Odd:
        def value(self, step: int, steps: int, metrics: Any) -> Any:
            return value

    parts._blocks = [replace(parts._blocks[0], weight=Odd())]  # as a third party's schedule would
    with pytest.raises(RunError, match=r"the schedule of on_policy.weight came to .* a number of at least 0"):
        parts.at(StepContext(step=1))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda view: view.log_probs.sum(), r"gave shape \(\); expected \(4,\): one loss for each token"),
        (lambda view: 0.0, r"gave 0\.0; expected a tensor of shape \(4,\)"),
        (lambda view: view.lengths.zero_(), r"gave another lengths than it got, changed in place"),
        (lambda view: view.log_probs.detach(), "gave values without a gradient"),
        (lambda view: view.reference, "the loss reads reference, which its `needs` does not name"),
        (lambda view: view.measure("loss", view.log_probs), "the loss measures 'loss'"),
    ],
)
def test_a_loss_that_breaks_its_contract_is_told_with_its_term(given: Any, said: str) -> None:
    objective = reading(make_objective({}), frozenset(), given)
    sequences = sequences_of(objective, guided("q", (plain(),)))
    with pytest.raises(PluginError, match=rf"loss reads at on_policy\.loss \(Reads\.token_losses, .*\): {said}"):
        run(objective, sequences, [torch.full((4,), -1.0).requires_grad_()])


def test_a_loss_may_read_a_schedule_at_the_step() -> None:
    seen = []

    class Fading:
        def token_losses(self, view):
            seen.append((view.context.step, view.value(Linear(start=1.0, end=0.0))))
            return -view.log_probs * seen[-1][1]

    parts = ObjectiveParts(objectives.make_objective({}).config, BuildContext(), 7)
    objective = parts.at(StepContext(3, 5))
    objective = replace(objective, terms=tuple(replace(term, loss=Fading()) for term in objective.terms))
    own = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    value, _ = objectives.run(objective, [objectives.sequence(2, 0, 1.0, False, old_log_probs=own.detach())], [own])
    assert seen == [(3, 0.5)]
    assert value == pytest.approx(0.75)
