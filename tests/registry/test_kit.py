"""The kit finds what it says it finds: one component for each rule that breaks it."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import pytest
from ampo_registry import (
    AdvantageSpec,
    AggregatorSpec,
    BuildContext,
    Grade,
    GradeRequest,
    Message,
    Question,
    RewardSpec,
    Rollout,
    RolloutGroup,
    RolloutRequest,
    RolloutSpec,
    SamplingOptions,
    ScoringSelectorSpec,
    Selection,
    SelectionContext,
    SelectionRequest,
    SelectorSpec,
    ShapingSpec,
    TaskData,
    TaskQuestion,
    TaskSpec,
    TeacherAnswer,
    TeacherPoolSpec,
    Totals,
    TrackerSpec,
    TriggerContext,
    TriggerSpec,
)
from ampo_registry import testing as kit
from pydantic import AfterValidator

if TYPE_CHECKING:
    import torch


class Chooser(SelectorSpec):
    """Breaks one rule."""

    type: Literal["chooser"] = "chooser"
    fault: str = ""

    def select(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[Selection]]:
        chosen = [[Selection(g) for g in request.candidates[: request.k]] for request in requests]
        match self.fault:
            case "too many":
                return [[Selection(g) for g in request.candidates] for request in requests]
            case "twice":
                return [[Selection(request.candidates[0])] * request.k for request in requests]
            case "foreign":
                return [[Selection(replace(s.guidance, teacher="nobody")) for s in one] for one in chosen]
            case "global random":
                return [[Selection(random.choice(request.candidates))] for request in requests]
            case "missing":
                return chosen[1:]
            case "mutates" if requests:
                requests.reverse()  # type: ignore[attr-defined]
            case "nan":
                return [[Selection(s.guidance, float("nan")) for s in one] for one in chosen]
        return chosen


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("too many", "at most k = 2 may be selected"),
        ("twice", "no candidate may be selected twice"),
        ("foreign", "must be one of the request's own candidates"),
        ("global random", "two fresh builds .* must do the same: .* never from the global generator"),
        ("missing", "one list of selections for each request"),
        ("mutates", "candidate|must be left as they are"),
        ("nan", "a score must be a number or None"),
    ],
)
def test_selector_rules(fault: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=f"selector chooser: .*({rule})"):
        kit.check_selector(Chooser(fault=fault))


def test_selector_without_fault_passes() -> None:
    kit.check_selector(Chooser())


class Undocumented(ScoringSelectorSpec):
    type: Literal["undocumented"] = "undocumented"

    def score(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[float]]:
        return [[0.0 for _ in request.candidates] for request in requests]


class Scorer(ScoringSelectorSpec):
    """Breaks one rule of scoring."""

    type: Literal["scorer"] = "scorer"
    fault: str = ""

    def score(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[float]]:
        scores = [[float(i) for i, _ in enumerate(request.candidates)] for request in requests]
        match self.fault:
            case "missing":
                return scores[1:]
            case "short":
                return [one[1:] for one in scores]
            case "nan":
                return [[float("nan") for _ in one] for one in scores]
        return scores


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("missing", "one list of scores for each request"),
        ("short", "one score for each candidate"),
        ("nan", "a score must be a number, not NaN"),
    ],
)
def test_scoring_selector_rules(fault: str, rule: str) -> None:
    kit.check_selector(Scorer())
    with pytest.raises(AssertionError, match=f"selector scorer: .*{rule}"):
        kit.check_selector(Scorer(fault=fault))


class Unwritable(Undocumented):
    """Its option does not survive YAML: each reading adds 1."""

    type: Literal["unwritable"] = "unwritable"  # type: ignore[assignment]
    seed: Annotated[int, AfterValidator(lambda seed: seed + 1)] = 1


@pytest.mark.parametrize(
    ("spec", "rule"),
    [(Undocumented(), "needs a docstring"), (Unwritable(), "reading back must give an equal spec")],
    ids=["docstring", "yaml"],
)
def test_rules_of_every_spec(spec: ScoringSelectorSpec, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        kit.check_selector(spec)


class Firing(TriggerSpec):
    """Breaks one rule."""

    type: Literal["firing"] = "firing"
    fault: str = ""

    def fires(self, group: RolloutGroup, context: TriggerContext) -> bool:
        if self.fault == "random":
            return random.Random(random.random()).random() < 0.5
        return len(group.wrong)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("fault", "rule"), [("", "must return a bool"), ("random", "two fresh builds .* must do the same")]
)
def test_trigger_rules(fault: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=f"trigger firing: {rule}|{rule}"):
        kit.check_trigger(Firing(fault=fault))


class Weights(AggregatorSpec):
    """Breaks one rule."""

    type: Literal["weights"] = "weights"
    fault: str = ""

    def token_weights(self, lengths: torch.Tensor, totals: Totals) -> torch.Tensor:
        match self.fault:
            case "zero":
                return 1.0 / (lengths.double() * totals.sequences)
            case "part":
                return (lengths * 0 + 1).double() / max(int(lengths.sum()), 1)
            case "dtype":
                return (lengths * 0 + 1).float()
            case "negative":
                return (lengths * 0 - 1).double()
        return (lengths * 0 + 1).double() / max(totals.tokens, 1)


@pytest.mark.parametrize(
    ("fault", "rule"),
    [("zero", "finite"), ("part", "the weights it has in the whole"), ("dtype", "float64"), ("negative", "positive")],
)
def test_aggregator_rules(fault: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        kit.check_aggregator(Weights(fault=fault))


def test_aggregator_must_sum_as_stated() -> None:
    kit.check_aggregator(Weights(), total=1.0)
    with pytest.raises(AssertionError, match=r"weights must sum to 2\.0"):
        kit.check_aggregator(Weights(), total=lambda totals: 2.0)


class Shape(ShapingSpec):
    """Breaks one rule."""

    type: Literal["shape"] = "shape"
    fault: str = ""

    def shape(self, log_ratio: torch.Tensor) -> torch.Tensor:
        match self.fault:
            case "root":
                return log_ratio.exp().sqrt()
            case "detached":
                return log_ratio.detach().exp()
            case "double":
                return log_ratio.double().exp()
            case "sum":
                return log_ratio.exp() / len(log_ratio)
            case "overflow":
                return (-log_ratio).exp()
            case "above 0":
                return (-log_ratio).sqrt()
            case "steep":
                return (10 * log_ratio).exp()
        return log_ratio.exp()


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("root", "gradients must be finite"),
        ("detached", "must be differentiable"),
        ("double", "the dtype must stay"),
        ("sum", "must not depend on other tokens"),
        ("overflow", "must be finite"),
        ("above 0", "values must be finite for log-ratios from -1e4 to 20: above 0 is a token"),
        ("steep", "values must be finite for log-ratios from -1e4 to 20"),
    ],
)
def test_shaping_rules(fault: str, rule: str) -> None:
    kit.check_shaping(Shape())
    with pytest.raises(AssertionError, match=rule):
        kit.check_shaping(Shape(fault=fault))


class Gain(AdvantageSpec):
    """Breaks one rule."""

    type: Literal["gain"] = "gain"
    fault: str = ""

    def advantages(self, rewards: torch.Tensor, correct: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor:
        match self.fault:
            case "mean":
                return (rewards - rewards.sum() / len(rewards)) / (rewards.std(correction=0) + 1e-6)
            case "nan":
                return (rewards - rewards.mean()) / rewards.std(correction=0)
            case "order":
                return (rewards - rewards[0]).double()
            case "float":
                return (rewards - rewards).float()
            case "in place":
                return rewards.zero_()
        return rewards * 0


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("mean", "exactly 0"),
        ("nan", "exactly 0"),
        ("order", "the order of the group must not matter"),
        ("float", "float64"),
        ("in place", "must be left as they are"),
    ],
)
def test_advantage_rules(fault: str, rule: str) -> None:
    kit.check_advantage(Gain())
    with pytest.raises(AssertionError, match=rule):
        kit.check_advantage(Gain(fault=fault))


class Pool(TeacherPoolSpec):
    """Breaks one rule."""

    type: Literal["pool"] = "pool"
    fault: str = ""

    def answers(self, question: Question) -> Sequence[TeacherAnswer]:
        match self.fault:
            case "random":
                return [TeacherAnswer("t", str(random.random()))]
            case "iterator":
                return iter(())  # type: ignore[return-value]
            case "nameless":
                return [TeacherAnswer("", "text")]
            case "nan":
                return [TeacherAnswer("t", "text", (float("-inf"),))]
            case "mutates":
                question.extra["seen"] = True  # type: ignore[index]
        return ()


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("random", "the same answers"),
        ("iterator", "list or tuple"),
        ("nameless", "must name its teacher"),
        ("nan", "must be finite"),
        ("mutates", "must be left as it is"),
    ],
)
def test_teacher_pool_rules(fault: str, rule: str) -> None:
    kit.check_teacher_pool(Pool())
    with pytest.raises(AssertionError, match=rule):
        kit.check_teacher_pool(Pool(fault=fault))


class Equal(RewardSpec):
    """Breaks one rule."""

    type: Literal["equal"] = "equal"
    fault: str = ""

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        grades = [self._grade(request) for request in requests]
        match self.fault:
            case "sorted":
                grades.sort(key=lambda grade: grade.reward)
            case "short":
                return grades[:1]
            case "everything":
                return [self.combine(True, True) for _ in grades]
            case "large":
                return [replace(grade, reward=grade.reward * 2) for grade in grades]
            case "error":
                return [replace(grade, status="error") for grade in grades]
        return grades

    def _grade(self, request: GradeRequest) -> Grade:
        correct = f"<answer>{request.answer}</answer>" in request.text
        return self.combine(correct, self.formatted(request.text))

    def check_truth(self, answer: str) -> str | None:
        return None if answer or self.fault == "empty truth" else "it is empty"

    def note_truth(self, answer: str) -> str | None:
        return "" if self.fault == "empty note" else None


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("sorted", "in the order of the requests"),
        ("short", "one grade for each request"),
        ("everything", "must not be correct"),
        ("large", "must lie in 0.0..1.0"),
        ("error", "timeouts and errors must not occur"),
        ("empty truth", "an empty truth must be refused"),
        ("empty note", "must give a reason or None"),
    ],
)
def test_reward_rules(fault: str, rule: str) -> None:
    kit.check_reward(Equal(), "42", "41")
    with pytest.raises(AssertionError, match=rule):
        kit.check_reward(Equal(fault=fault), "42", "41")


class Even(RewardSpec):
    """Its truth is a constraint, and no answer: an even number below it."""

    type: Literal["even"] = "even"
    logs: ClassVar[tuple[str, ...]] = ("even/number",)
    known: bool = True
    fault: str = ""

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        return [self._grade(request) for request in requests]

    def _grade(self, request: GradeRequest) -> Grade:
        digits = re.sub(r"\D", "", request.text)
        correct = bool(digits) and int(digits) < int(request.answer) and int(digits) % 2 == 0
        name = {"core": "reward/x", "silent": "even/other"}.get(self.fault, "even/number")
        return replace(self.combine(correct, True), numbers={name: float(digits or 0)})

    def check_truth(self, answer: str) -> str | None:
        return None if answer.isdigit() else "it is no number"

    def canaries(self) -> Sequence[tuple[GradeRequest, bool]]:
        known = {"8": True, "9": False, "12": self.fault == "canary"}
        return [(GradeRequest(text, "10"), correct) for text, correct in known.items()] if self.known else []


def test_a_reward_whose_truth_is_no_answer_says_by_canaries_or_arguments_what_is_right() -> None:
    kit.check_reward(Even())
    right, wrong = GradeRequest("8", "10", extra={"a": []}), GradeRequest("9", "10")
    kit.check_reward(Even(known=False), right=[right], wrong=[wrong])
    with pytest.raises(
        AssertionError, match=r"reward even: nothing says what is right.*canaries.*check_reward\(spec, "
    ):
        kit.check_reward(Even(known=False))
    with pytest.raises(AssertionError, match="nothing says what is right"):
        kit.check_reward(Even(known=False), right=[right])
    with pytest.raises(AssertionError, match="'9' with the ground truth '10' must be correct"):
        kit.check_reward(Even(), right=[wrong])
    with pytest.raises(AssertionError, match="'8' with the ground truth '10' must not be correct"):
        kit.check_reward(Even(), wrong=[right])
    with pytest.raises(AssertionError, match="an answer that is wrong needs a truth beside it"):
        kit.check_reward(Even(), wrong="9")


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("core", "the metric 'reward/x' needs a name of its own"),
        ("silent", r"every name in logs must be among the numbers of some grade; found \['even/number'\]"),
        ("canary", "'12' with the ground truth '10' must be correct"),
    ],
)
def test_numbers_and_canaries_of_a_reward_are_checked(fault: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        kit.check_reward(Even(fault=fault))


class FakeEngine:
    """Samples from a uniform distribution over 5 tokens, breaking one rule."""

    def __init__(self, fault: str) -> None:
        self.fault, self.version, self.calls = fault, 0, 0

    def generate(self, requests: Sequence[RolloutRequest], options: SamplingOptions) -> list[list[Rollout]]:
        self.calls += 1
        limits = [options.limit_of(request) for request in requests]
        if self.fault == "limit of all":
            limits = [min(limits, default=0)] * len(limits)
        elif self.fault == "no limit of its own":
            limits = [options.max_response_tokens] * len(limits)
        cut = [replace(options, max_response_tokens=limit) for limit in limits]
        return [
            [self._sample(seed, len(requests), own) for seed in request.seeds]
            for request, own in zip(requests, cut, strict=True)
        ]

    def _sample(self, seed: int, batch: int, options: SamplingOptions) -> Rollout:
        noise = {"batch": str(batch), "calls": str(self.calls)}.get(self.fault, "")
        greedy = options.temperature == 0.0 and self.fault != "greedy"
        source = random.Random(f"{noise}{0 if self.fault == 'seedless' or greedy else seed}")
        ids: list[int] = []
        while len(ids) < options.max_response_tokens and (not ids or ids[-1] not in options.stop_token_ids):
            ids.append(source.randrange(1, 6))
        stopped = ids[-1] in options.stop_token_ids
        if self.fault == "drops stop" and stopped and len(ids) > 1:
            ids.pop()
        if self.fault == "long":
            ids.append(1)
        logprobs = (-1.6,) * (len(ids) - (self.fault == "logprobs"))
        reason: Any = "stop" if stopped and self.fault != "reason" else "length"
        return Rollout(tuple(ids), logprobs, "text", reason, self.version)

    def load_weights(self, weights: Any, policy_version: int) -> None:
        self.version = policy_version if self.fault != "version" else 0

    def sleep(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


class Fake(RolloutSpec):
    """Breaks one rule."""

    type: Literal["fake"] = "fake"
    fault: str = ""

    def build(self, context: BuildContext) -> FakeEngine:
        return FakeEngine(self.fault)


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("batch", "alone and in a batch"),
        ("calls", "the same seeds must give the same samples"),
        ("seedless", "different seeds must give different samples"),
        ("greedy", "at temperature 0 the seed must not matter"),
        ("drops stop", "stop token"),
        ("long", "1 to max_response_tokens"),
        ("no limit of its own", "1 to max_response_tokens = 4"),
        ("limit of all", "only the length limit may end"),
        ("logprobs", "one log-prob for each token"),
        ("reason", 'has finished by "stop"'),
        ("version", "must carry the version"),
    ],
)
def test_rollout_rules(fault: str, rule: str) -> None:
    kit.check_rollout(Fake(), BuildContext(), weights=[])
    with pytest.raises(AssertionError, match=rule):
        kit.check_rollout(Fake(fault=fault), BuildContext(), weights=[])


class Nowhere(TrackerSpec):
    """Writes nothing, or too much."""

    type: Literal["nowhere"] = "nowhere"
    fault: str = ""

    def build(self, context: BuildContext) -> Any:
        spec = self

        class Sink:
            def log(self, metrics: Mapping[str, float], step: int) -> None:
                if spec.fault == "mutates":
                    metrics["extra"] = 1.0  # type: ignore[index]

            def close(self) -> None: ...

        return Sink()


def test_tracker_rules(tmp_path: Path) -> None:
    kit.check_tracker(Nowhere(), tmp_path, writes_files=False)
    with pytest.raises(AssertionError, match="must write into the run's folder"):
        kit.check_tracker(Nowhere(), tmp_path)
    with pytest.raises(AssertionError, match="must be left as they are"):
        kit.check_tracker(Nowhere(fault="mutates"), tmp_path, writes_files=False)


class World(TaskSpec):
    """Breaks one rule."""

    type: Literal["world"] = "world"
    fault: str = ""

    def make(self, seed: int) -> TaskData:
        shift = random.randrange(10**9) if self.fault == "random" else 0
        answers = () if self.fault == "teacherless" else (TeacherAnswer("t", "text"),)
        train = [TaskQuestion((Message("user", f"{i + shift}"),), "1", "world", {}, answers) for i in range(4)]
        heldout = [TaskQuestion((Message("user", "new"),), "1", "world")]
        if self.fault == "leak":
            heldout.append(train[0])
        last = "user" if self.fault == "sft" else "assistant"
        sft = ((Message("user", "hello"), Message(last, "hello")),)
        return TaskData(tuple(train), {"set": tuple(heldout)}, sft)


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("random", "the same seed must give the same data"),
        ("teacherless", "training needs some teacher answers"),
        ("leak", "no question of the held-out set set may be in training"),
        ("sft", "must end with the assistant"),
    ],
)
def test_task_rules(fault: str, rule: str, tmp_path: Path) -> None:
    kit.check_task(World(), tmp_path)
    with pytest.raises(AssertionError, match=rule):
        kit.check_task(World(fault=fault))


def test_unavailable_component_must_refuse() -> None:
    class Later(Fake):
        """Not here."""

        type: Literal["later"] = "later"  # type: ignore[assignment]

        def unavailable(self) -> str:
            return "not yet"

    with pytest.raises(AssertionError, match="must raise an AmpoError"):
        kit.check_unavailable(Later(), Later().build, BuildContext())


def test_fake_scorer_follows_the_scorers_rule() -> None:
    scorer = kit.FakeScorer({"fixed": [-0.5]})
    question = kit.example_question()
    tagged, untagged = kit.example_guidance("a"), kit.example_guidance("b", formatted=False)
    fixed = kit.example_guidance("fixed")
    logprobs = scorer.answer_logprobs([(question, tagged), (question, untagged), (question, fixed)])
    assert logprobs[0]
    assert all(value <= 0 for value in logprobs[0])
    assert logprobs[1:] == [[], [-0.5]]
    assert scorer.answer_logprobs([(question, tagged)]) == logprobs[:1]
    assert scorer.calls == 2
