"""Trigger, candidates, selection and replacement against the authors' program, and what it does not do."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ampo_registry import (
    BuildContext,
    DataError,
    Grade,
    GradeRequest,
    Guidance,
    Message,
    PluginError,
    Question,
    Rollout,
    RolloutGroup,
    RunError,
    Selection,
    TeacherAnswer,
    TeacherPoolSpec,
)
from ampo_registry.discovery import discover
from ampo_registry.protocols import Constant
from ampo_registry.testing import example_step

from ampo_core.checked.call import Asked
from ampo_core.checked.guidance import CheckedSelector
from ampo_core.config.tree import GuidanceConfig, ModelConfig
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import Ranks, join_ranks
from ampo_core.loop.groups import GuidedQuestion
from ampo_core.loop.guidance import Guide
from ampo_core.loop.scoring import answer_tokens, corrected_trajectory
from ampo_core.loop.teachers import TeacherLibrary
from ampo_core.train import guide

Golden = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def catalog() -> Any:
    return discover().catalog


@pytest.fixture(scope="module")
def tokenizer(golden_tokenizer: Any) -> PromptTokenizer:
    return PromptTokenizer(golden_tokenizer, ModelConfig(path="tests/golden/tokenizer"))


@pytest.fixture(scope="module")
def ranks() -> Ranks:
    return join_ranks()


class InProcessGrader:
    """The real reward without the worker processes."""

    def __init__(self, catalog: Any) -> None:
        self.reward = catalog.resolve("reward", "math_verify")

    def grade(self, requests: Sequence[GradeRequest], tries: int = 1) -> list[Grade]:
        return list(self.reward.grade(requests))


class TableScorer:
    """The golden file's table: a log-prob for every token scored, by the key that the teacher's text contains."""

    def __init__(self, table: dict[str, Any], tokenizer: PromptTokenizer) -> None:
        self.table, self.tokenizer, self.calls = table, tokenizer, 0

    def answer_logprobs(self, items: Sequence[tuple[Question, Guidance]]) -> list[list[float]]:
        self.calls += bool(items)
        return [self._score(question, guidance) for question, guidance in items]

    def _score(self, question: Question, guidance: Guidance) -> list[float]:
        trajectory = corrected_trajectory(guidance.text, question.answer)
        if trajectory is None:
            return []
        _, truth = answer_tokens(self.tokenizer, trajectory)
        value = next(value for key, value in self.table.items() if key in guidance.text)
        values: Iterator[float] = cycle(value) if isinstance(value, list) else cycle([value])
        return list(islice(values, len(truth)))


def question_of(tokenizer: PromptTokenizer, answer: str, targets: Sequence[Sequence[str]]) -> Question:
    messages = (Message("user", "x + y"),)
    answers = tuple(TeacherAnswer(name, text, quality_score=1.0) for name, text in targets)
    return Question("q", messages, tuple(tokenizer.prompt_ids(messages)), answer, "openr1", answers=answers)


def group_of(
    question: Question, texts: Sequence[str], rewards: Sequence[float], threshold: float = 0.6
) -> RolloutGroup:
    return RolloutGroup(
        question,
        tuple(Rollout((5, 6), (-1.0, -1.0), text, "stop", 0) for text in texts),
        tuple(Grade(reward, reward >= threshold, True) for reward in rewards),
        threshold,
    )


PRESETS = {
    "released": {
        "selector": {
            "type": "comprehension",
            "mean": "arithmetic",
            "rank_format_weight": 0.1,
            "score_rounding": "bfloat16",
            "ties": "dataset",
        },
        "teacher_reward": 1.0,
    },
    "paper": {},
}

DIFFERENT = {
    "teacher_too_long": "a teacher answer over the limit is cut and rewarded 1 there; here it is left out and counted",
    "always_all_correct": "decided but replaced nothing there; here a group without a wrong slot does not fire",
    "selection_length(naive)": "the naive order there is the dataset's; here `length` looks at lengths",
}
"""Which slot is drawn and which teacher gets it differ everywhere (the order there is unseeded): sets are compared."""

EXPECTED_PAPER = {"rank_arithmetic_k1": ["tB"], "ties_all_equal": ["tA", "tB"], "teacher_format_bad": ["tB", "tD"]}
"""Where the geometric mean, or the shorter-first tie rule, or no format term, choose by other rules."""


@pytest.mark.parametrize("preset", ["released", "paper"])
def test_injection(preset: str, golden: Golden, catalog: Any, tokenizer: PromptTokenizer, ranks: Ranks) -> None:
    data = golden("injection")
    for case in data["cases"]:
        strategy = case["config"]["actor_rollout_ref"]["rollout"]["injection_strategy"]
        options = {**PRESETS[preset], "trigger": strategy}
        config = GuidanceConfig.model_validate(options, context={"catalog": catalog})
        group, scorer = case["groups"][0], TableScorer(case["table"], tokenizer)
        library = TeacherLibrary(
            config.teacher_pool, tokenizer, InProcessGrader(catalog), ranks, data["max_response_length"]
        )
        question = question_of(tokenizer, group["gt"], group["teachers"])
        groups = [group_of(question, group["responses"], case["rewards_before"], config.threshold)]
        wanted = case["config"]["actor_rollout_ref"]["rollout"]["n_prefix"]
        if case["name"] == "selection_length(naive)":
            config = GuidanceConfig.model_validate({**options, "selector": "length"}, context={"catalog": catalog})

        config = config.model_copy(update={"replacements": wanted})
        parts = Guide.build(config, library, scorer, BuildContext())
        (augmented,) = guide(groups, 0, parts, example_step(scorer=scorer)).questions

        theirs = case["runs"][0]
        teachers = sorted(name for name, count in theirs["teacher_tracker"].items() for _ in range(count))
        if preset == "paper" and case["name"] in EXPECTED_PAPER:
            teachers = EXPECTED_PAPER[case["name"]]
        if case["name"] == "teacher_too_long":
            teachers = ["tB"]
            assert library.counts["overlong"] == 1
        found = sorted(s.selection.guidance.teacher for s in augmented.samples if s.selection is not None)
        assert found == teachers, case["name"]
        assert augmented.triggered == (theirs["decisions"] == [True] and case["name"] != "always_all_correct")
        if preset == "released" and case["name"] not in DIFFERENT:
            assert sorted(sample.reward for sample in augmented.samples) == pytest.approx(
                sorted(theirs["rewards_after"])
            )
        if augmented.triggered:
            kept = [sample.reward for sample in augmented.samples if not sample.off_policy]
            assert len(augmented.samples) == 8
            assert sum(reward >= 0.6 for reward in kept) == sum(r >= 0.6 for r in case["rewards_before"])
    assert {case["name"] for case in data["cases"]} >= set(DIFFERENT) | set(EXPECTED_PAPER)


def guide_of(selector: Any = None, *, seed: int = 0, **options: Any) -> Guide:
    """A guide for what needs neither trigger nor library."""
    config = GuidanceConfig.model_construct(**{"replacements": 2, "teacher_reward": "verified", **options})
    parts: Any = (None, None, selector, None, Constant(2.0), None)
    return Guide(config, *parts, seed, {})


class Failing(InProcessGrader):
    """Has no verdict on an answer that holds "slow" in the calls numbered so."""

    def __init__(self, catalog: Any, *without: int) -> None:
        super().__init__(catalog)
        self.without, self.asked = without, list[list[str]]()

    def grade(self, requests: Sequence[GradeRequest], tries: int = 1) -> list[Grade]:
        self.asked.append([request.text for request in requests])
        fails = len(self.asked) in self.without
        failure = Grade(0, False, False, "timeout")
        grades = super().grade(requests, tries)
        return [failure if fails and "slow" in r.text else g for r, g in zip(requests, grades, strict=True)]


def test_a_teacher_answer_is_graded_once_and_the_unusable_are_counted(
    catalog: Any, tokenizer: PromptTokenizer, ranks: Ranks
) -> None:
    targets = [("A", "x <answer>7</answer>"), ("B", "x <answer>8</answer>"), ("C", "slow <answer>7</answer>")]
    question, grader = question_of(tokenizer, "7", targets), Failing(catalog, 1)
    library = TeacherLibrary(catalog.resolve("teacher_pool", "dataset"), tokenizer, grader, ranks, 96)
    first, again = library.candidates([question, question])
    assert [guidance.teacher for guidance in first] == ["A"]
    assert first[0].token_ids[-1] == tokenizer.end_token_id
    assert first == again
    assert library.candidates([question])[0][0] is first[0]
    assert grader.asked == [[text for _, text in targets], ["slow <answer>7</answer>"]]
    assert library.take_counts() == {"incorrect": 1, "ungraded": 1}
    assert library.take_counts() == {}


def test_what_was_left_out_is_told_without_asking_the_pool_again(
    catalog: Any, tokenizer: PromptTokenizer, ranks: Ranks
) -> None:
    class Once(TeacherPoolSpec):
        """A pool that has fewer answers each time."""

        left: ClassVar = ["x <answer>8</answer>", "x <answer>7</answer>"]

        def teachers(self) -> tuple[str, ...]:
            return ("A",)

        def answers(self, question: Question) -> list[TeacherAnswer]:
            given = [TeacherAnswer("A", text) for text in self.left]
            self.left.pop()
            return given

    question = question_of(tokenizer, "7", [])
    library = TeacherLibrary(Once(), tokenizer, InProcessGrader(catalog), ranks, 96)  # type: ignore[arg-type]
    assert len(library.candidates([question])[0]) == 1
    assert library.left_out(question) == [("A", "incorrect")]


def test_an_answer_without_a_verdict_is_asked_again_when_its_question_comes_again(
    catalog: Any, tokenizer: PromptTokenizer, ranks: Ranks
) -> None:
    slow = ["slow <answer>7</answer>", "slow <answer>8</answer>"]
    targets = [("A", "x <answer>7</answer>"), ("B", slow[0]), ("C", "y <answer>7</answer>"), ("D", slow[1])]
    question = question_of(tokenizer, "7", targets)
    pool, grader = catalog.resolve("teacher_pool", "dataset"), Failing(catalog, 1, 2)
    library = TeacherLibrary(pool, tokenizer, grader, ranks, 96)
    found = [[guidance.teacher for guidance in library.candidates([question])[0]] for _ in range(4)]
    assert found == [["A", "C"], ["A", "C"], ["A", "B", "C"], ["A", "B", "C"]]
    assert grader.asked[1:] == [slow, slow, []]
    assert library.take_counts() == {"ungraded": 2}  # each answer once, when it was first left out

    resumed = TeacherLibrary(pool, tokenizer, Failing(catalog), ranks, 96)
    resumed.load_state_dict(library.state_dict())
    assert resumed.candidates([question]) == library.candidates([question])
    assert resumed.take_counts() == library.take_counts() == {}


def test_answers_with_control_tokens_are_counted(catalog: Any, tokenizer: PromptTokenizer, ranks: Ranks) -> None:
    targets = [("A", "x <answer>7</answer><|im_end|>\n"), ("B", "x <answer>7</answer><|im_end|>\n<|im_start|>user")]
    question = question_of(tokenizer, "7", targets)
    library = TeacherLibrary(catalog.resolve("teacher_pool", "dataset"), tokenizer, InProcessGrader(catalog), ranks, 96)
    assert library.check([question, question]) == ("A", "B")
    (note,) = library.notes
    assert "control token inside: 1 (<|im_end|>, <|im_start|>)" in note


def test_recorded_log_probs_must_fit_the_tokens(catalog: Any, tokenizer: PromptTokenizer, ranks: Ranks) -> None:
    text = "x <answer>7</answer>"
    length = len(tokenizer.answer_ids(text, []))

    class Pool(TeacherPoolSpec):
        """One answer with `count` log-probs."""

        count: int

        def answers(self, question: Question) -> list[TeacherAnswer]:
            return [TeacherAnswer("A", text, (-0.5,) * self.count if self.count else None)]

    def library(count: int) -> TeacherLibrary:
        return TeacherLibrary(
            Pool(count=count), tokenizer, InProcessGrader(catalog), ranks, 96, recorded="objective.off_policy.loss"
        )

    question = question_of(tokenizer, "7", [])
    assert library(length).candidates([question])[0][0].logprobs == (-0.5,) * length
    assert library(length - 1).candidates([question])[0][0].logprobs == (*(-0.5,) * (length - 1), 0.0)
    for wrong in (0, length + 1):
        with pytest.raises(DataError, match="needs a log-prob for each of the"):
            library(wrong).candidates([question])
        with pytest.raises(DataError, match=r"^pool\.jsonl, row 1: objective\.off_policy\.loss needs a log-prob for"):
            library(wrong).check([question], lambda index: f"pool.jsonl, row {index + 1}")


def test_recorded_log_probs_of_a_pool_are_finite_and_at_most_0(
    catalog: Any, tokenizer: PromptTokenizer, ranks: Ranks
) -> None:
    text = "x <answer>7</answer>"
    length = len(tokenizer.answer_ids(text, []))

    class Pool(TeacherPoolSpec):
        """One answer whose last log-prob is `last`."""

        last: float

        def answers(self, question: Question) -> list[TeacherAnswer]:
            return [TeacherAnswer("A", text, (*(-0.5,) * (length - 1), self.last))]

    for last in (0.13, math.nan, -math.inf):
        library = TeacherLibrary(
            Pool(last=last), tokenizer, InProcessGrader(catalog), ranks, 96, recorded="objective.off_policy.loss"
        )
        with pytest.raises(DataError, match=f"question 0: .*a finite number of at most 0; found {last:g}"):
            library.check([question_of(tokenizer, "7", [])])


def test_the_row_that_brings_unfit_log_probs_is_named(catalog: Any, tokenizer: PromptTokenizer, ranks: Ranks) -> None:
    right, wrong = "x <answer>7</answer>", "y <answer>7</answer>"
    count = len(tokenizer.answer_ids(right, []))
    answers = (TeacherAnswer("A", right, (-0.5,) * count), TeacherAnswer("B", wrong, (-0.5,)))
    rows = [{"target_lst": [{"content": answer.text}]} for answer in answers]
    questions = [replace(question_of(tokenizer, "7", []), answers=answers, extra=row) for row in rows]
    pool = catalog.resolve("teacher_pool", "dataset")
    library = TeacherLibrary(pool, tokenizer, InProcessGrader(catalog), ranks, 96, recorded="objective.off_policy.loss")
    with pytest.raises(DataError, match=r"^row 2: .* of B's answer; found 1$"):
        library.check(questions, lambda index: f"row {index + 1}")


def test_guidance_holds_the_text_that_is_trained_on(
    catalog: Any, golden_tokenizer: Any, tmp_path: Path, ranks: Ranks
) -> None:
    template = tmp_path / "thinking.jinja"
    template.write_text("{{ messages[-1]['content'] + '<think>\\n' }}")
    model = ModelConfig(path="tests/golden/tokenizer", chat_template=str(template))
    thinking = PromptTokenizer(golden_tokenizer, model)
    eos = golden_tokenizer.eos_token
    text = f"<think>\nstep {eos} </think><answer>7</answer>{eos}{eos}"
    question = question_of(thinking, "7", [("A", text)])
    library = TeacherLibrary(catalog.resolve("teacher_pool", "dataset"), thinking, InProcessGrader(catalog), ranks, 96)
    guidance = library.candidates([question])[0][0]
    assert guidance.text == f"step {eos} </think><answer>7</answer>"
    assert guidance.token_ids == (*thinking.encode(guidance.text)[0], thinking.end_token_id)
    assert guidance.token_ids.count(thinking.end_token_id) == 1
    trajectory = corrected_trajectory(guidance.text, "7")
    assert trajectory is not None
    before, truth = answer_tokens(thinking, trajectory)
    assert thinking.end_token_id not in before
    assert thinking.decode(truth).strip() == "7"


def test_a_pool_without_any_answer_is_refused_and_teachers_are_named(
    catalog: Any, tokenizer: PromptTokenizer, ranks: Ranks
) -> None:
    library = TeacherLibrary(catalog.resolve("teacher_pool", "dataset"), tokenizer, InProcessGrader(catalog), ranks, 96)
    empty = question_of(tokenizer, "7", [])
    with pytest.raises(DataError, match="none of the 2 training questions has a teacher answer"):
        library.check([empty, empty])
    answered = question_of(tokenizer, "7", [("B", "<answer>7</answer>"), ("A", "<answer>7</answer>")])
    assert library.check([empty, answered]) == ("A", "B")


@pytest.mark.parametrize("fault", ["foreign", "twice", "too many", "too few lists"])
def test_a_selector_that_breaks_its_contract_is_named(fault: str, tokenizer: PromptTokenizer) -> None:
    mine = Guidance("A", "x", (1,), Grade(1, True, True))
    other = Guidance("B", "y", (1,), Grade(1, True, True))
    answers = {
        "foreign": [[Selection(Guidance("A", "x", (1,), Grade(1, True, True)))]],
        "twice": [[Selection(mine), Selection(mine)]],
        "too many": [[Selection(mine), Selection(other), Selection(mine)]],
        "too few lists": [],
    }

    class Broken:
        def select(self, requests: Any, context: Any) -> list[list[Selection]]:
            return answers[fault]

    group = group_of(question_of(tokenizer, "7", []), ["a"] * 4, [0.0] * 4)
    with pytest.raises(PluginError, match=r"Broken\.select"):
        guide_of(CheckedSelector(Asked(Broken(), "selector"))).select(
            [group], [(mine, other)], [0], [True], example_step()
        )


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_schedule_of_k0_that_comes_to_no_number_of_answers_is_named(value: float) -> None:
    guide = replace(guide_of(), replacements=Constant(value))
    said = f"step 3: the schedule of guidance.replacements came to {value:g}; it must be a number of at least 1"
    with pytest.raises(RunError, match=re.escape(said)):
        guide.select([], [], [], [], example_step(3))


def test_a_group_without_candidates_is_not_asked_for_and_takes_nobody_s_answer(tokenizer: PromptTokenizer) -> None:
    mine = Guidance("A", "x", (1,), Grade(1, True, True))
    asked: list[int] = []

    class First:
        """Takes the first candidate."""

        def select(self, requests: Any, context: Any) -> list[list[Selection]]:
            asked.extend(request.k for request in requests)
            return [[Selection(candidate) for candidate in request.candidates[:1]] for request in requests]

    group = group_of(question_of(tokenizer, "7", []), ["a"] * 4, [0.0] * 4)
    chosen = guide_of(First()).select([group] * 3, [(), (mine,), ()], [0, 1, 2], [True] * 3, example_step())
    assert asked == [1]
    assert [[selection.guidance.teacher for selection in one] for one in chosen] == [[], ["A"], []]


def test_replacement_is_seeded_hits_only_wrong_slots_and_leaves_the_rest_alone(
    catalog: Any, tokenizer: PromptTokenizer
) -> None:
    group = group_of(question_of(tokenizer, "7", []), list("abcdefgh"), [0.0, 1.0, 0.1, 0.9, 0.0, 0.1, 0.0, 1.0])
    chosen = [Selection(Guidance(name, name, (1,), Grade(0.9, True, False)), 0.5) for name in "AB"]

    def replaced_by(seed: int = 0, **options: Any) -> GuidedQuestion:
        guide = replace(guide_of(seed=seed, **options), intervention=catalog.resolve("intervention", "replace"))
        return guide.intervene([group], {0: ((), chosen)}, [0], 0, example_step()).questions[0]

    seen = set()
    for seed in range(30):
        augmented = replaced_by(seed)
        assert augmented == replaced_by(seed)
        replaced = [i for i, sample in enumerate(augmented.samples) if sample.off_policy]
        assert len(replaced) == 2
        assert set(replaced) <= set(group.wrong)
        assert all(augmented.samples[i].reward == 0.9 for i in replaced)
        assert all(augmented.samples[i].text == group.rollouts[i].text for i in range(8) if i not in replaced)
        seen.update(replaced)
    assert seen == set(group.wrong)
    forced = replaced_by(teacher_reward=1.0)
    assert {sample.reward for sample in forced.samples if sample.off_policy} == {1.0}
