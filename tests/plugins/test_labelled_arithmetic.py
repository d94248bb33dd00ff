"""The task `labelled_arithmetic`: questions, teachers, warm-up, tokenizer, start model."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_plugins.tasks.labelled_arithmetic import LabelledArithmetic
from ampo_plugins.tasks.labelled_arithmetic.model import vocabulary
from ampo_plugins.tasks.labelled_arithmetic.problems import (
    Operation,
    Problem,
    draw_distinct,
    draw_problem,
    split_by_share,
)
from ampo_plugins.tasks.labelled_arithmetic.teachers import STYLES, TEACHERS, bare, chain, cipher, terse, verbose
from ampo_registry import GradeRequest
from ampo_registry.testing import check_task
from pydantic import ValidationError

SMALL = LabelledArithmetic(questions=40, heldout_per_level=6, warmup_examples=200)
# 37: A+5 = 42, B-3 = 39, C*2 = 78
PROBLEM = Problem(37, (Operation("A", "+", 5), Operation("B", "-", 3), Operation("C", "*", 2)), (2, 0, 1))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tokenizer as everybody gets it: from the start model's folder, beside its config.json."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("start")
    SMALL.write_start_model(folder, 0)
    return AutoTokenizer.from_pretrained(folder)


def test_conforms(tmp_path: Path) -> None:
    check_task(SMALL, tmp_path)


def test_another_seed_gives_other_questions() -> None:
    assert SMALL.make(0) != SMALL.make(1)


def test_the_question_is_printed_in_shuffled_order_and_applied_in_label_order() -> None:
    assert PROBLEM.text == "37C*2A+5B-3?"
    assert PROBLEM.values == (42, 39, 78)
    assert PROBLEM.answer == "78"


@pytest.mark.parametrize(
    ("operation", "value", "expected"),
    [(Operation("A", "-", 5), 2, 97), (Operation("A", "*", 3), 51, 53), (Operation("A", "+", 4), 97, 1)],
)
def test_only_the_last_two_digits_are_kept(operation: Operation, value: int, expected: int) -> None:
    assert operation.apply(value) == expected


def test_every_answer_has_two_digits() -> None:
    assert Problem(10, (Operation("A", "-", 3),), (0,)).answer == "07"


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (bare, "<answer> 78 </answer>"),
        (chain, "A+5=42;B-3=39;C*2=78;<answer> 78 </answer>"),
        (
            verbose,
            "A: we add 5 and now we have 42.B: we take away 3 and now we have 39."
            "C: we multiply by 2 and now we have 78.<answer> 78 </answer>",
        ),
        (terse, "A=42;<answer> 78 </answer>"),
        (cipher, "A+५=४२;B-३=३९;C*२=७८;<answer> 78 </answer>"),
    ],
)
def test_styles(style: object, text: str) -> None:
    assert callable(style)
    assert style(PROBLEM) == text


@pytest.mark.parametrize(("level", "clauses"), [(2, []), (4, [2]), (5, [2, 1]), (6, [2, 2])])
def test_terse_leaves_the_last_two_operations_to_the_answer(level: int, clauses: list[int]) -> None:
    text = terse(draw_problem(level, Random(0)))
    assert [len(labels) for labels in re.findall(r"([A-F]+)=", text)] == clauses


def test_every_answer_of_every_style_is_graded_correct_and_a_wrong_one_is_not() -> None:
    rng = Random(3)
    problems = [draw_problem(level, rng) for level in (1, 2, 4, 6) for _ in range(3)]
    problems.append(Problem(10, (Operation("A", "-", 3),), (0,)))  # the answer is 07
    requests = [GradeRequest(style(problem), problem.answer) for problem in problems for style in STYLES.values()]
    assert {grade.reward for grade in MathVerify().grade(requests)} == {1.0}
    assert not MathVerify().grade([GradeRequest("<answer> 87 </answer>", "78")])[0].correct
    assert all(MathVerify().check_truth(f"{value:02d}") is None for value in range(0, 100, 9))


def test_every_label_occurs_on_every_level_in_order() -> None:
    problems = [draw_problem(level, Random(f"{level}/{seed}")) for level in (1, 3) for seed in range(40)]
    labels = [[operation.label for operation in problem.operations] for problem in problems]
    assert all(found == sorted(set(found)) for found in labels)
    assert {label for found in labels[:40] for label in found} == set("ABCDEF")


def test_levels_and_shares_are_kept() -> None:
    data = SMALL.make(0)
    assert Counter(question.extra["level"] for question in data.train) == {2: 10, 4: 18, 5: 12}
    assert {name: len(questions) for name, questions in data.heldout.items()} == {f"level{n}": 6 for n in range(2, 7)}


def test_a_word_for_a_level_stands_in_its_rows_and_changes_nothing_else() -> None:
    named, plain = SMALL.model_copy(update={"kinds": {2: "short", 4: "long"}}).make(0), SMALL.make(0)
    words = {(question.extra["level"], question.extra["kind"]) for question in named.train}
    assert words == {(2, "short"), (4, "long"), (5, None)}
    assert [question.messages for question in named.train] == [question.messages for question in plain.train]
    assert named.sft == plain.sft
    assert all("kind" not in question.extra for question in plain.train)


def test_held_out_questions_occur_neither_in_training_nor_in_the_warm_up() -> None:
    task = LabelledArithmetic(
        questions=300, heldout_per_level=60, heldout_levels=[1, 2], levels={1: 1, 2: 1}, warmup_levels={1: 1}
    )
    data = task.make(0)
    held_out = {question.messages[0].content for questions in data.heldout.values() for question in questions}
    trained = {question.messages[0].content for question in data.train}
    warmed_up = {conversation[0].content for conversation in data.sft}
    assert len(held_out) == 120
    assert len(trained) == 300
    assert not held_out & (trained | warmed_up)


def test_each_teacher_is_missing_for_a_quarter_of_the_questions() -> None:
    data = LabelledArithmetic(questions=2000, warmup_examples=0).make(0)
    present = Counter(answer.teacher for question in data.train for answer in question.teacher_answers)
    assert set(present) == set(TEACHERS)
    assert all(abs(count / 2000 - 0.75) < 0.04 for count in present.values())


def test_a_few_hard_conversations_are_solved_step_by_step() -> None:
    task = LabelledArithmetic(warmup_examples=4000, warmup_levels={4: 1.0}, hard_step_by_step=0.1)
    share = sum(bool(re.search(r"[-+*].=", a.content)) for _, a in task.make(0).sft) / 4000
    assert 0.08 < share < 0.12


def test_the_warm_up_reasons_on_easy_levels_only() -> None:
    task = LabelledArithmetic(warmup_examples=2000, hard_step_by_step=0.0)
    for user, assistant in task.make(0).sft:
        level = len(re.findall(r"[A-Z]", user.content))
        reasoning = assistant.content.partition("<answer>")[0]
        if level > 3:
            assert "+" not in reasoning
            assert " we " not in reasoning
    texts = [assistant.content for user, assistant in task.make(0).sft if len(re.findall("[A-Z]", user.content)) == 3]
    shares = [sum(bool(re.search(r"[-+*].=", t)) for t in texts), sum(" we " in t for t in texts)]
    assert [share / len(texts) for share in shares] == pytest.approx([0.5, 0.15], abs=0.06)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("level", [1, 3, 5, 6])
def test_texts_survive_the_tokenizer(style: str, level: int, tokenizer: Any) -> None:
    text = STYLES[style](draw_problem(level, Random(level)))
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == text
    assert tokenizer.unk_token_id not in encoded["input_ids"]
    assert "".join(text[start:end] for start, end in encoded["offset_mapping"]) == text


def test_a_digit_is_a_token_and_answer_tags_are_text(tokenizer: Any) -> None:
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("<answer> 37 </answer>")["input_ids"])
    assert tokens == ["<answer>", " ", "3", "7", " ", "</answer>"]
    assert len(tokenizer) == len(vocabulary()) < 60


def test_verbose_is_almost_twice_as_long_as_chain_and_fits_the_quickstart(tokenizer: Any) -> None:
    problem = draw_problem(5, Random(0))
    lengths = {name: len(tokenizer(style(problem))["input_ids"]) + 1 for name, style in STYLES.items()}
    assert lengths["chain"] == lengths["cipher"]
    assert 1.7 < lengths["verbose"] / lengths["chain"] < 2.0
    assert len(tokenizer(verbose(draw_problem(6, Random(0))))["input_ids"]) < 112


def test_the_chat_template_ends_where_the_model_begins(tokenizer: Any) -> None:
    turns = [{"role": "user", "content": "37A+5?"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert prompt == "<user>37A+5?<assistant>"
    full = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": bare(PROBLEM)}], tokenize=False)
    assert full == prompt + "<answer> 78 </answer><end>"


def test_the_start_model_is_small_and_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert SMALL.write_start_model(tmp_path, 0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert 300_000 < model.num_parameters() < 320_000
    assert model.generation_config.eos_token_id == AutoTokenizer.from_pretrained(tmp_path).eos_token_id


def test_shares_are_divided_into_whole_numbers() -> None:
    assert split_by_share(10, {2: 1, 4: 1, 5: 1}) == {2: 4, 4: 3, 5: 3}


def test_a_level_with_too_few_questions_is_an_error() -> None:
    with pytest.raises(ValueError, match="level 1 has too few distinct questions"):
        draw_distinct(1, 9000, Random(0), set())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": {9: 1.0}}, "there are levels 1 to 6"),
        ({"levels": {2: 0.0}}, "levels: the shares must add up"),
        ({"heldout_levels": [2, 2]}, "stands there twice"),
        ({"warmup_styles": {"chain": 1.0}}, "need a share of terse or bare"),
        ({"warmup_styles": {"cipher": 1.0}}, "warmup_styles"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LabelledArithmetic.model_validate(options)
