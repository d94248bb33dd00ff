"""The reward `function`: functions from verl and TRL as they are, what they get, and what is said of what they give."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from ampo_plugins.rewards import Function
from ampo_registry import BuildContext, GradeRequest, Message, PluginError, PluginFunction, Question, Reward
from ampo_registry.discovery import discover
from ampo_registry.testing import check_reward
from pydantic import ValidationError

from ampo_core.config.layouts import LAYOUTS
from ampo_core.data.layouts import RowReader

sys.path.insert(0, str(Path(__file__).parent))
FILE = "reward_functions"
ROW = {
    "prompt": [{"role": "user", "content": "3 + 4?"}],
    "extra_info": {"index": 3, "split": "train"},
    "solution": "7",
    "level": "easy",
}


def spec(name: str, style: str = "verl", **options: Any) -> Function:
    return Function.model_validate({"function": PluginFunction(FILE, name, "my.py"), "style": style, **options})


def built(name: str, style: str = "verl", **options: Any) -> Reward:
    return spec(name, style, **options).build(BuildContext())


def asked(text: str, answer: str = "7", **columns: object) -> GradeRequest:
    messages = (Message("system", "Think."), Message("user", "3 + 4?"))
    return GradeRequest(text, answer, "gsm8k", "uid", messages, {**ROW, **columns}, "length")


def refused(reward: Reward, request: GradeRequest) -> str:
    with pytest.raises(PluginError) as raised:
        reward.grade([request])
    return str(raised.value)


def test_a_function_of_verl_as_it_is():
    reward = built("gsm8k_score")
    right, wrong, none = reward.grade([asked("so #### 1,007", "1007"), asked("#### 8"), asked("8")])
    assert (right.reward, right.correct, right.status) == (1.0, True, "ok")
    assert (wrong.reward, wrong.correct) == (none.reward, none.correct) == (0.0, False)
    (partly,) = built("gsm8k_score", arguments={"format_score": 0.1}).grade([asked("#### 8")])
    assert partly.reward == pytest.approx(0.1)


def test_a_mapping_of_verl_gives_the_score_and_numbers_that_become_metrics():
    right, wrong = built("compute_score").grade([asked(" 7"), asked("8")])
    assert (right.reward, right.correct, wrong.reward, wrong.correct) == (1.0, True, -1.0, False)
    assert right.numbers == {"compute_score/acc": 1.0, "compute_score/length": 2.0}
    (grade,) = built("reward").grade([asked("")])
    assert grade.numbers == {"function_reward/acc": 1.0}


def test_what_there_is_reaches_a_function_that_names_it():
    text = refused(built("everything", arguments={"least": 5}), asked("seven"))
    turns = [{"role": "system", "content": "Think."}, {"role": "user", "content": "3 + 4?"}]
    given = ("gsm8k", "seven", "7", ROW["extra_info"], ROW, turns, "length", 5)
    assert f"everything of my.py raised ValueError: {given!r}" in text
    assert "reward_functions.py:" in text


def test_the_row_is_the_questions_own_without_its_teachers_answers():
    row = {**ROW, "target_lst": [{"content": "secret"}]}
    question = Question("uid", (Message("user", "3 + 4?"),), (), "7", "gsm8k", row)  # type: ignore[arg-type]
    assert "secret" not in refused(built("everything"), GradeRequest.of(question, "seven"))


def test_a_function_of_trl_as_it_is():
    right, wrong, none = built("accuracy", "trl").grade([asked("it is 7"), asked("8"), asked("7", solution="")])
    assert (right.reward, right.correct, wrong.reward, wrong.correct) == (1.0, True, 0.0, False)
    assert (none.status, none.correct) == ("error", False)
    assert "accuracy of my.py gave None, which reward.none says is no verdict" in none.detail
    (zero,) = built("accuracy", "trl", none="zero", correct_from=0.0).grade([asked("7", solution="")])
    assert (zero.status, zero.reward, zero.correct) == ("ok", 0.0, False)


@pytest.mark.parametrize("conversational", [True, False])
def test_trl_gets_prompts_completions_and_the_columns_as_lists_of_one(conversational):
    text = refused(built("columns", "trl", conversational=conversational, arguments={"scale": 2}), asked("seven"))
    turns = [{"role": "system", "content": "Think."}, {"role": "user", "content": "3 + 4?"}]
    prompts, completions = [turns], [[{"role": "assistant", "content": "seven"}]]
    if not conversational:
        prompts, completions = ["3 + 4?"], ["seven"]
    further = [("extra_info", [ROW["extra_info"]]), ("level", ["easy"]), ("scale", 2), ("solution", ["7"])]
    assert repr((prompts, completions, ["7"], further)) in text


def test_a_function_for_texts_is_told_of_messages():
    (grade,) = built("longer", "trl", conversational=False).grade([asked("one two three")])
    assert (grade.reward, grade.correct) == (3.0, True)
    assert "texts with reward.conversational: false" in refused(built("longer", "trl"), asked("one"))


def test_trl_gets_texts_where_the_rows_prompt_was_one(tmp_path):
    rows = {"text": {"prompt": "3 + 4?", "answer": "7"}, "turns": {**ROW, "answer": "7"}}
    reader = RowReader((LAYOUTS["trl"],))
    text, turns = (reader.read(rows[name], tmp_path / "rows.jsonl", 1).raw for name in ("text", "turns"))
    (grade,) = built("longer", "trl").grade([asked("one two three", **text)])
    assert grade.reward == 3.0
    assert "completions are messages here" in refused(built("longer", "trl"), asked("one", **turns))
    assert "completions are messages here" in refused(built("longer", "trl", conversational=True), asked("1", **text))
    assert "texts here, and messages with reward.conversational: true" in refused(
        built("as_list", "trl"), asked("two", **text)
    )


def test_a_coroutine_is_run_and_an_object_is_called():
    assert built("awaited", "trl").grade([asked("")])[0].reward == 1.0
    assert [grade.correct for grade in built("judge").grade([asked("7"), asked("8")])] == [True, False]


def test_a_column_that_the_row_lacks_is_told():
    request = GradeRequest("7", "7", extra={"solutions": "7"})
    text = refused(built("accuracy", "trl"), request)
    assert "its argument solution is no column of the row; did you mean 'solutions'? (columns: solutions)" in text


@pytest.mark.parametrize(
    ("name", "style", "text", "said"),
    [
        ("as_said", "verl", "text", "gave '1.0', expected a finite number"),
        ("as_said", "verl", "nan", "gave nan, expected a finite number"),
        ("as_said", "verl", "other", "gave {'acc': 1}, expected a number, or a mapping with score"),
        ("as_said", "verl", "huge", "gave 1000"),
        ("as_said", "verl", "endless", "gave a int, expected a finite number"),
        ("as_said", "verl", "two", "gave array([0.5, 1. ]), expected a finite number"),
        ("as_said", "verl", "beside", "'acc': nan}, expected finite numbers beside score, too; see acc"),
        ("as_list", "trl", "scalar", "gave 0.5, expected a list of one number or None"),
        ("as_list", "trl", "several", "gave [0.5, 1.0], expected a list of one number or None"),
        ("as_list", "trl", "two", "gave [1.0, 1.0], expected a list of one number or None"),
        ("as_list", "trl", "number", "gave 1.0, expected a list of one number or None"),
        ("as_list", "trl", "text", "gave '1', expected a list of one number or None"),
        ("fails", "verl", "", "raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_score_is_told(name, style, text, said):
    assert said in refused(built(name, style), asked(text))


def test_scores_of_numpy_and_the_first_of_a_list_are_taken():
    texts = ("array", "list", "half", "one")
    assert [g.reward for g in built("as_said").grade(list(map(asked, texts)))] == [1.0, 0.5, 0.5, 0.5]
    (beside,) = built("as_said").grade([asked("beside two")])
    assert (beside.reward, beside.numbers) == (1.0, {})
    texts = ("array", "tensor", "scalars")
    assert [g.reward for g in built("as_list", "trl").grade(list(map(asked, texts)))] == [0.5, 0.5, 0.5]


def test_memory_that_runs_out_reaches_the_worker_as_it_is():
    with pytest.raises(MemoryError):
        built("fails").grade([asked("memory")])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("by_position", {}, "by_position of my.py does not fit style verl: it takes solution_str by position alone"),
        (
            "wants_tokenizer",
            {},
            "its argument tokenizer: nothing gives it; it is called with data_source, solution_str",
        ),
        ("wants_ids", {"style": "trl"}, "its argument completion_ids: no token ids reach a reward"),
        ("wants_answer", {}, "it has no argument solution_str; it is called with"),
        ("accuracy", {}, "its argument completions: nothing gives it"),
        (
            "gsm8k_score",
            {"style": "trl"},
            "no argument completions; it is called with prompts, completions and the columns; style verl may fit",
        ),
        ("gsm8k_score", {"arguments": {"formatscore": 0.1}}, "no argument formatscore; did you mean 'format_score'?"),
        ("gsm8k_score", {"arguments": {"ground_truth": "7"}}, "arguments: ground_truth is given by the run"),
        ("gsm8k_score", {"pays": {"wrong": [0, 1], "right": [1, 1]}}, "pays: expected wrong [least, most] below"),
    ],
)
def test_a_function_that_does_not_fit_is_refused_before_a_run(name, options, said):
    with pytest.raises(ValidationError) as raised:
        spec(name, **options)
    assert said in raised.value.errors()[0]["msg"]


def test_what_it_pays_is_known_where_it_says_so():
    assert spec("gsm8k_score").earns(True) is None
    pays = {"wrong": [0.0, 0.1], "right": [1.0, 1.0]}
    known = spec("gsm8k_score", pays=pays, arguments={"format_score": 0.1})
    assert (known.earns(False), known.earns(True)) == ((0.0, 0.1), (1.0, 1.0))
    weighed = spec("gsm8k_score", pays=pays, format_weight=0.5)
    assert weighed.earns(False) == pytest.approx((0.0, 0.55))
    assert built("as_said", pays=pays).grade([asked("array")])[0].correct
    assert "gave 0.5, which is in neither span of reward.pays" in refused(built("as_said", pays=pays), asked("half"))


def test_the_score_from_which_a_response_is_correct():
    assert built("as_said", correct_from=0.5).grade([asked("half")])[0].correct
    assert not built("as_said", correct_from=0.51).grade([asked("half")])[0].correct


def test_the_format_counts_where_it_is_asked_for():
    (grade,) = built("judge", format_weight=0.2).grade([asked("<answer>7</answer>", "<answer>7</answer>")])
    assert (grade.reward, grade.formatted) == (1.0, True)
    (grade,) = built("judge", format_weight=0.2).grade([asked("<answer>8</answer>")])
    assert grade.reward == pytest.approx(0.2)


def test_it_keeps_the_contract():
    right, wrong = [asked("so #### 7")], [asked("so #### 8")]
    check_reward(spec("gsm8k_score"), right=right, wrong=wrong)
    check_reward(spec("accuracy", "trl"), right=right, wrong=wrong)
    assert spec("gsm8k_score").truth_is_answer
    assert not spec("gsm8k_score", truth="other").truth_is_answer
    assert pickle.loads(pickle.dumps(spec("gsm8k_score"))) == spec("gsm8k_score")  # noqa: S301


def test_a_config_names_it(tmp_path, monkeypatch):
    file = tmp_path / "score_for_a_config.py"
    file.write_text("def compute_score(solution_str, ground_truth):\n    return 1.0\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    catalog = discover([file]).catalog
    found = catalog.resolve("reward", {"type": "function", "function": "compute_score", "style": "verl"})
    assert isinstance(found, Function)
    with pytest.raises(ValueError, match="style\n  Field required"):
        catalog.resolve("reward", {"type": "function", "function": "compute_score"})
