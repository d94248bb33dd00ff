"""From files to questions: the contract, the filters, and that nothing goes missing uncounted."""

import copy
import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ampo_registry import DataError, Message, TeacherAnswer

from ampo_core.data.questions import load_questions, question_uid
from ampo_core.data.report import TruthCheck

ROW = {
    "data_source": "math",
    "prompt": [{"role": "system", "content": "put the answer"}, {"role": "user", "content": "x + y"}],
    "ability": "math",
    "reward_model": {"ground_truth": "7", "style": "rule"},
    "extra_info": {"index": 5, "split": "default"},
    "target_lst": [{"role": "assistant", "content": "<answer>7</answer>", "source": "A", "quality_score": 0.5}],
}


def row(**changes):
    """ROW with changed fields; a dot reaches inside; `...` removes."""
    made = copy.deepcopy(ROW)
    for name, value in changes.items():
        *outer, last = (int(part) if part.isdigit() else part for part in name.split("__"))
        inner = made
        for part in outer:
            inner = inner[part]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
    return made


def asking(text, **changes):
    return row(prompt=[{"role": "user", "content": text}], **changes)


def check_truths(truths):
    """Refuses empty ground truths and lists those in letters."""
    return [
        TruthCheck(None if truth else "it is empty", "it is a word" if truth.isalpha() else None) for truth in truths
    ]


@pytest.fixture
def load(tmp_path, prompt_tokenizer):
    def run(*rows, path=None, **options):
        file = path or tmp_path / "rows.jsonl"
        if path is None:
            file.write_text("".join(json.dumps(item) + "\n" for item in rows))
        defaults = {
            "max_prompt_tokens": 200,
            "overlong_prompts": "drop",
            "system_prompt": "keep",
            "check_truths": check_truths,
        }
        return load_questions([file], prompt_tokenizer, **{**defaults, **options})

    return run


def counts_add_up(report):
    left_out = report.repeats_dropped + report.overlong_dropped + report.beyond_limit + len(report.refused)
    return report.selected == report.questions + left_out and report.questions == report.distinct + report.duplicates


def test_a_question_holds_all_that_the_row_says(load, prompt_tokenizer):
    (question,) = load(ROW).questions
    assert question.messages == (Message("system", "put the answer"), Message("user", "x + y"))
    assert question.answer == "7"
    assert question.source == "math"
    assert question.extra == ROW
    assert question.answers == (TeacherAnswer("A", "<answer>7</answer>", None, 0.5),)
    assert list(question.prompt_token_ids) == prompt_tokenizer.prompt_ids(question.messages)
    assert question.uid == question_uid(question.messages, "7")


def test_uid_is_of_messages_and_answer_only(load):
    found = load(ROW, row(extra_info__index=9, data_source="amc"), row(reward_model__ground_truth="8"), asking("x+y"))
    first, same, other_answer, other_prompt = (question.uid for question in found.questions)
    assert first == same
    assert len({first, other_answer, other_prompt}) == 3
    text = '[[["system", "put the answer"], ["user", "x + y"]], "7"]'
    assert first == hashlib.sha256(text.encode()).hexdigest()


def test_a_scored_answer_is_read_and_is_no_part_of_the_identity(load):
    rows = [row(), *(asking(f"{said!r}", reward_model__scored_answer=said) for said in ("3 + 4", " ", None))]
    found = load(*rows).questions
    assert [question.scored_answer for question in found] == [None, "3 + 4", None, None]
    assert found[1].uid == question_uid(found[1].messages, "7")


def test_parquet_and_jsonl_give_the_same(load, tmp_path):
    rows = [ROW, asking("1 + 1"), asking("2 + 1", target_lst=None)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    from_parquet, from_jsonl = load(path=tmp_path / "rows.parquet"), load(*rows)
    assert from_parquet.questions == from_jsonl.questions
    assert [q.extra["target_lst"] for q in from_parquet.questions] == [r["target_lst"] for r in rows]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(data_source=...), r"data_source must be text; found nothing"),
        (row(data_source=3), r"data_source must be text; found 3"),
        (row(prompt=None), r"prompt must be a list of"),
        (row(prompt="x + y"), r"prompt must be a list; found 'x \+ y'"),
        (row(prompt=[]), r"prompt must be a list .* whose last turn is the user's; found \[\]"),
        (row(prompt__1__content=None), r"prompt\[1\]\.content must be text"),
        (row(prompt__1__role="human"), r"prompt\[1\]\.role must be one of system, user, assistant; found 'human'"),
        (row(prompt__1__role="assistant"), r"prompt must be a list .* whose last turn is the user's"),
        (row(prompt__1=["user"]), r"prompt\[1\] must be \{role, content\}"),
        (row(reward_model=...), r"reward_model must be a mapping; found nothing"),
        (row(reward_model__ground_truth=...), r"reward_model\.ground_truth must be text; found nothing"),
        (row(reward_model__ground_truth=None), r"reward_model\.ground_truth must be text; found nothing"),
        (row(reward_model__ground_truth=7), r"reward_model\.ground_truth must be text; found 7"),
        (row(reward_model__scored_answer=7), r"reward_model\.scored_answer must be text; found 7"),
        (row(reward_model__style="model"), r"reward_model\.style must be \"rule\""),
        (row(ability=1), r"ability must be text"),
        (row(extra_info=[1]), r"extra_info must be a mapping"),
        (row(target_lst="x"), r"target_lst must be a list"),
        (row(target_lst__0__source=...), r"target_lst\[0\]\.source must be text"),
        (row(target_lst__0__content=1), r"target_lst\[0\]\.content must be text"),
        (row(target_lst__0__quality_score="high"), r"target_lst\[0\]\.quality_score must be a number"),
        (row(target_lst__0__logprobs=[0.1, None]), r"target_lst\[0\]\.logprobs must be a list of finite numbers"),
        (row(target_lst__0__logprobs=[0.1, float("nan")]), r"target_lst\[0\]\.logprobs must be a list of finite"),
        (
            row(target_lst__0__logprobs=[-0.1, 0.13]),
            r"target_lst\[0\]\.logprobs must be numbers of at most 0, .*found 0\.13",
        ),
        (row(target_lst__0__logprobs=[10**400]), r"target_lst\[0\]\.logprobs must be a list of finite numbers"),
        (row(target_lst__0__quality_score=10**400), r"target_lst\[0\]\.quality_score must be a number"),
        (row(target_lst__0__source=""), r"target_lst\[0\]\.source must be the name of a teacher; found ''"),
        (row(target_lst__0__role="user"), r"target_lst\[0\]\.role must be assistant; found 'user'"),
        (row(target={"role": "assistant"}), r"target must be a list"),
        (row(target=[{"role": "user", "content": "7"}]), r"target\[0\]\.role must be assistant; found 'user'"),
        (row(target=[{"role": "assistant", "content": "7", "source": 3}]), r"target\[0\]\.source must be text"),
    ],
)
def test_malformed_row_is_named(load, bad, message):
    with pytest.raises(DataError, match=r"rows\.jsonl, row 2: " + message):
        load(ROW, bad)


def test_null_and_absent_targets_are_fine(load):
    found = load(row(target_lst=None), row(target_lst=...), row(target_lst=[]), row(target=[]), row(ability=None))
    assert len(found.questions) == 5


def test_missing_file_names_the_nearest(load, tmp_path):
    (tmp_path / "train.parquet").touch()
    with pytest.raises(DataError, match=r"trian\.parquet: no such data file; did you mean .*train\.parquet"):
        load(path=tmp_path / "trian.parquet")
    with pytest.raises(DataError, match="there is no folder"):
        load(path=tmp_path / "nowhere" / "train.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "holds no row"),
        ("blank.jsonl", b"\n\n", "holds no row"),
        ("broken.jsonl", json.dumps(ROW).encode() + b"\n{oops\n", r"line 2: not a JSON object: Expecting"),
        ("binary.jsonl", b"\xff\xfe\x00\n", r"line 1: not a JSON object: Expecting"),
        ("list.jsonl", b"[1]\n", r"line 1: not a JSON object: found list"),
        ("broken.parquet", b"PAR1 no", "not readable as Parquet"),
        ("rows.csv", b"a,b\n", "holds no row"),
        ("rows.txt", b"a,b\n", r"ends in \.parquet, \.jsonl, \.json or \.csv, not in '\.txt'"),
    ],
)
def test_unreadable_file(load, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(path=tmp_path / name)


def test_empty_parquet(load, tmp_path):
    pq.write_table(pa.Table.from_pylist([ROW]).slice(0, 0), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="holds no row"):
        load(path=tmp_path / "rows.parquet")


def test_refused_truths_are_reported_with_rows_and_reason(load, tmp_path):
    found = load(ROW, row(reward_model__ground_truth=""), ROW)
    assert len(found.questions) == 2
    (refused,) = found.report.refused
    assert (refused.file, refused.row, refused.truth, refused.reason) == (
        str(tmp_path / "rows.jsonl"),
        2,
        "",
        "it is empty",
    )
    assert counts_add_up(found.report)
    assert any("row 2: ground truth '' refused: it is empty" in line for line in found.report.lines())


def test_a_long_list_of_refused_truths_is_counted_not_printed(load):
    report = load(ROW, *[row(reward_model__ground_truth="")] * 60).report
    assert len(report.refused) == 60
    assert len(report.lines()) == 1 + 50 + 1
    assert report.lines()[-1] == "and 10 more rows with a refused ground truth"


def test_listed_truths_are_kept_and_reported_with_rows_and_reason(load, tmp_path):
    report = load(ROW, asking("capital?", reward_model__ground_truth="Rome")).report
    assert (report.questions, report.refused) == (2, ())
    (listed,) = report.listed
    assert (listed.file, listed.row, listed.truth) == (str(tmp_path / "rows.jsonl"), 2, "Rome")
    head, line = report.lines()
    assert head.endswith("2 questions: 2 distinct, 1 kept, ground truth listed")
    assert line.endswith("row 2: ground truth 'Rome' listed: it is a word")
    assert counts_add_up(report)


def test_truths_are_checked_together_each_once_and_none_beyond_the_limit(load):
    asked = []

    def check(truths):
        asked.append(list(truths))
        return check_truths(truths)

    rows = [asking(str(i), reward_model__ground_truth=truth) for i, truth in enumerate(["1", "2", "1", "", "3", ""])]
    assert len(load(*rows, check_truths=check).questions) == 4
    assert asked == [["1", "2", "", "3"]]
    asked.clear()
    limited = load(*rows, check_truths=check, limit=3).report
    assert asked == [["1", "2"]]
    assert (limited.questions, limited.beyond_limit, limited.refused) == (3, 3, ())
    asked.clear()
    last = load(*rows[2:], check_truths=check, limit=2).report
    assert asked == [["1", ""], ["3"]]
    assert (last.questions, last.beyond_limit, len(last.refused)) == (2, 1, 1)
    assert counts_add_up(limited)
    assert counts_add_up(last)


def targets(*pairs):
    return [{"role": "assistant", "content": text, "source": name} for name, text in pairs]


def offered(question):
    return [(answer.teacher, answer.text) for answer in question.answers]


def test_rows_of_one_question_share_their_teacher_answers(load):
    found = load(
        row(target_lst=targets(("A", "7"), ("B", "seven"))),
        row(target_lst=None, target=[{"role": "assistant", "content": "7."}], extra_info__index=6),
        asking("other", target_lst=targets(("A", "no"))),
        row(target_lst=targets(("C", "7"), ("A", "7"))),
        row(target_lst=targets(("B", "seven"), ("A", "7"))),
    )
    union = [("A", "7"), ("B", "seven"), ("teacher", "7."), ("C", "7")]
    assert [offered(question) for question in found.questions] == [union, union, [("A", "no")], union, union]
    assert [q.extra["extra_info"]["index"] for q in found.questions] == [5, 6, 5, 5, 5]
    assert found.report.repeats_differing == 2
    assert "2 repeats with other teacher answers" in found.report.lines()[0]
    assert found.questions[1].extra["target_lst"] is None


def test_a_repeat_that_is_left_out_leaves_its_teacher_answers(load):
    found = load(row(target_lst=targets(("A", "7"))), row(target_lst=targets(("B", "7"))), distinct=True)
    assert [offered(question) for question in found.questions] == [[("A", "7"), ("B", "7")]]
    assert (found.report.repeats_dropped, found.report.repeats_differing) == (1, 1)
    assert counts_add_up(found.report)


@pytest.mark.parametrize("distinct", [False, True])
def test_rows_of_one_question_share_the_first_scored_answer_and_others_are_counted(load, distinct):
    scored = [None, "3 + 4", "7", "3 + 4", None]
    found = load(*(row(reward_model__scored_answer=said) for said in scored), distinct=distinct)
    assert [question.scored_answer for question in found.questions] == ["3 + 4"] * (1 if distinct else 5)
    assert (found.report.scored_differing, found.report.repeats_differing) == (1, 0)
    assert "1 repeats whose other scored answer is not used" in found.report.lines()[0]


def test_equal_repeats_keep_their_rows_as_they_are(load):
    found = load(ROW, row(extra_info__index=6))
    assert [question.extra for question in found.questions] == [ROW, row(extra_info__index=6)]
    assert found.report.repeats_differing == 0


A, B, UNNAMED = targets(("A", "1"))[0], targets(("B", "2"))[0], {"role": "assistant", "content": "3"}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, []),
        ({"target_lst": None}, []),
        ({"target_lst": []}, []),
        ({"target_lst": [A, B]}, [("A", "1"), ("B", "2")]),
        ({"target_lst": [A], "target": [UNNAMED]}, [("A", "1")]),
        ({"target_lst": [], "target": [UNNAMED]}, []),
        ({"target_lst": None, "target": [UNNAMED]}, [("teacher", "3")]),
        ({"target": [UNNAMED]}, [("teacher", "3")]),
        ({"target": [A]}, [("A", "1")]),
        ({"target": [{**UNNAMED, "source": None}, {**B, "source": ""}]}, [("teacher", "3"), ("teacher", "2")]),
        ({"target": None}, []),
        ({"target": []}, []),
        ({"target_lst": [UNNAMED]}, None),
        ({"target_lst": [{**A, "source": ""}]}, None),
        ({"target_lst": [{**A, "role": "user"}]}, None),
        ({"target_lst": [{"content": "1", "source": "A"}]}, None),
        ({"target_lst": [{**A, "content": None}]}, None),
        ({"target_lst": [{**A, "quality_score": "high"}]}, None),
        ({"target_lst": [{**A, "quality_score": True}]}, None),
        ({"target_lst": [3]}, None),
        ({"target_lst": "text"}, None),
        ({"target_lst": [{**A, "logprobs": [float("nan")]}]}, None),
        ({"target": [{**A, "role": "system"}]}, None),
        ({"target": [{**A, "source": 3}]}, None),
        ({"target": [{**A, "logprobs": "x"}]}, None),
        ({"target": UNNAMED}, None),
    ],
)
def test_the_teacher_answers_of_a_row(load, columns, expected):
    """`expected` are (teacher, text) pairs, None a refusal."""
    made = {**row(target_lst=...), **columns}
    if expected is None:
        with pytest.raises(DataError, match="target"):
            load(made)
    else:
        assert offered(load(made).questions[0]) == expected


def test_scores_and_log_probs_of_teacher_answers(load):
    given = [(1, [-0.5, -1]), (float("nan"), None), (None, None)]
    found = load(row(target_lst=[{**A, "quality_score": score, "logprobs": logprobs} for score, logprobs in given]))
    answers = [(answer.quality_score, answer.logprobs) for answer in found.questions[0].answers]
    assert answers == [(1.0, (-0.5, -1.0)), (None, None), (None, None)]


def test_nothing_left_says_why(load):
    with pytest.raises(DataError, match=r"(?s)no question is left.*row 1: ground truth '' refused"):
        load(row(reward_model__ground_truth=""))


def test_nothing_left_names_the_limit_of_prompts_and_the_longest(load):
    with pytest.raises(
        DataError,
        match=r"no question is left; a prompt may have 2 tokens \(data\.max_prompt_tokens.*and the longest has 23",
    ):
        load(row(), max_prompt_tokens=2)


def test_where_reaches_inside_and_does_not_confuse_types(load):
    rows = [row(extra_info__index=1), row(extra_info__index=2, data_source="amc"), row(extra_info__index=2)]
    assert len(load(*rows, where={"data_source": "math", "extra_info.index": 2}).questions) == 1
    with pytest.raises(DataError, match="no question is left; where"):
        load(*rows, where={"extra_info.index": True})
    with pytest.raises(DataError, match=r"where: no column extra_info\.level; found data_source, prompt"):
        load(*rows, where={"extra_info.level": 1})


def test_rows_that_where_leaves_out_are_not_checked(load):
    found = load(row(data_source="other", prompt=None), ROW, where={"data_source": "math"})
    assert (found.report.rows, found.report.selected, found.report.questions) == (2, 1, 1)


def test_distinct_limit_and_duplicates(load):
    rows = [asking("a"), asking("a"), asking("b"), asking("c"), asking("c")]
    everything = load(*rows).report
    assert (everything.questions, everything.distinct, everything.duplicates) == (5, 3, 2)
    found = load(*rows, distinct=True)
    assert [q.messages[0].content for q in found.questions] == ["a", "b", "c"]
    assert found.report.repeats_dropped == 2
    limited = load(*rows, distinct=True, limit=2)
    assert [q.messages[0].content for q in limited.questions] == ["a", "b"]
    assert (limited.report.repeats_dropped, limited.report.beyond_limit) == (1, 2)
    assert all(counts_add_up(report) for report in (everything, found.report, limited.report))


def test_system_prompt_replaces_or_is_put_first(load):
    found = load(ROW, asking("x + y"), system_prompt="Box it.")
    assert [q.messages for q in found.questions] == [(Message("system", "Box it."), Message("user", "x + y"))] * 2
    assert found.report.distinct == 1


def test_system_prompt_may_be_dropped(load):
    found = load(ROW, asking("x + y"), system_prompt="drop")
    assert [q.messages for q in found.questions] == [(Message("user", "x + y"),)] * 2
    assert found.report.distinct == 1


def test_overlong_prompts_are_dropped_or_lose_their_first_tokens(load, prompt_tokenizer):
    long = asking("one two three " * 20)
    dropped = load(ROW, long, max_prompt_tokens=40)
    assert (len(dropped.questions), dropped.report.overlong_dropped) == (1, 1)
    cut = load(ROW, long, max_prompt_tokens=40, overlong_prompts="cut")
    whole = prompt_tokenizer.prompt_ids(cut.questions[1].messages)
    assert len(whole) > 40
    assert list(cut.questions[1].prompt_token_ids) == whole[-40:]
    assert (cut.report.overlong_cut, cut.report.overlong_dropped) == (1, 0)
    assert counts_add_up(dropped.report)
    assert counts_add_up(cut.report)


def test_a_log_prob_that_rounding_lifts_above_0_is_0(load):
    (question,) = load(row(target_lst__0__logprobs=[-0.5, 1e-7])).questions
    assert question.answers[0].logprobs == (-0.5, 0.0)


def test_files_are_read_in_parts_and_every_part_is_told(load, monkeypatch, tmp_path):
    monkeypatch.setattr("ampo_core.data.questions.PART", 2)
    asked, told = [], []

    def check(truths):
        asked.append(list(truths))
        return check_truths(truths)

    rows = [asking(str(i), reward_model__ground_truth=truth) for i, truth in enumerate(["1", "2", "1", "", "3"])]
    found = load(*rows, check_truths=check, watch=lambda *seen: told.append(seen))
    assert asked == [["1", "2"], [""], ["3"]]
    path = str(tmp_path / "rows.jsonl")
    assert told == [(path, 2, 5), (path, 4, 5), (path, 5, 5)]
    assert found.rows == (1, 2, 3, 5)
    assert [found.place(i) for i in (0, 3)] == [f"{path}, row 1", f"{path}, row 5"]
    whole = load(*rows, *rows, distinct=True, limit=3)
    assert (len(whole.questions), whole.report.selected, whole.report.repeats_dropped) == (3, 10, 3)
    assert counts_add_up(whole.report)


def test_report_of_files(prompt_tokenizer, tmp_path):
    for name, rows in (("a", [ROW, asking("b")]), ("b", [ROW])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows))
    found = load_questions(
        [tmp_path / "a.jsonl", str(tmp_path / "b.jsonl")],
        prompt_tokenizer,
        max_prompt_tokens=200,
        overlong_prompts="drop",
        system_prompt="keep",
        check_truths=None,
    )
    assert [(file.rows, file.questions) for file in found.report.files] == [(2, 2), (1, 1)]
    assert found.report.files[0].sha256 == hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
    assert found.report.duplicates == 1
