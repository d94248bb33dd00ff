"""Whole builds with the transformers rollout and random models: what is written, what goes on, what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ampo_plugins.teacher_pools.dataset import Dataset
from ampo_registry import ConfigError, DataError, RunError

from ampo_core.config.sft_job import SftDataConfig
from ampo_core.config.tree import ModelConfig
from ampo_core.data.questions import load_questions
from ampo_core.data.tokens import load_tokenizer
from ampo_core.jobs.pool.choose import FATES
from ampo_core.jobs.sft_data import load_examples

pytestmark = pytest.mark.process


def test_every_answer_and_question_is_accounted_for(built: Any) -> None:
    summary = built.summary
    questions = summary["questions"]
    assert questions["rows"] == 12
    assert (questions["asked"], questions["repeats_left_out"], questions["prompt_too_long"]) == (10, 1, 1)
    teachers = summary["teachers"]
    assert {name: teacher["answers"] for name, teacher in teachers.items()} == {"tied": 30, "book": 20, "untied": 30}
    for teacher in teachers.values():
        assert sum(teacher[fate] for fate in FATES) == teacher["answers"]
        assert teacher["kept"] == teacher["questions_answered"] == teacher["questions_solved"]
    met = Counter({fate: sum(teacher[fate] for teacher in teachers.values()) for fate in FATES})
    assert min(met[fate] for fate in ("kept", "not_chosen", "incorrect", "not_graded", "cut_off")) > 0
    assert sum(summary["answered_by"].values()) == 10
    both = summary["answered_by_both"]
    assert both["tied"]["untied"] == both["untied"]["tied"] <= min(both["tied"]["tied"], both["untied"]["untied"])
    assert both["book"]["book"] == teachers["book"]["questions_answered"]
    whole = summary["compositions"]["all"]
    assert whole["answers"] == sum(whole["answers_of"].values()) == met["kept"]
    assert "Questions that both teachers have" in built.said
    assert "10 questions; answered, by number of teachers" in built.said


def test_the_files_are_what_training_loads(built: Any, tiny_model: Path) -> None:
    tokenizer = load_tokenizer(ModelConfig(path=str(tiny_model)))
    options = {"max_prompt_tokens": 64, "overlong_prompts": "drop", "system_prompt": "keep", "check_truths": None}
    for name in ("all", "book", "models"):
        path = built.run / "out" / f"{name}.parquet"
        questions = load_questions([path], tokenizer, **options).questions
        assert len(questions) == 10
        pool = Dataset()
        pool.check_questions(questions)
        answers = [answer for question in questions for answer in pool.answers(question)]
        count = built.summary["compositions"][name]
        assert Counter(answer.teacher for answer in answers) == {k: v for k, v in count["answers_of"].items() if v}
        assert all(answer.quality_score is not None and 0 < answer.quality_score <= 1 for answer in answers)
        pairs = load_examples(SftDataConfig(train=[str(path)], format="pool", max_tokens=128), tokenizer).pairs
        sft = str(built.run / "out" / f"sft_{name}.parquet")
        said = load_examples(SftDataConfig(train=[sft], format="messages", max_tokens=128), tokenizer).pairs
        assert sorted(pairs, key=str) == sorted(said, key=str)
        assert len(pairs) == count["answers"]


def test_the_shortest_correct_answer_of_each_teacher_is_written_as_it_was_sampled(built: Any) -> None:
    written = pq.read_table(built.run / "out" / "all.parquet").to_pylist()
    assert [row["extra_info"]["index"] for row in written] == list(range(10))
    assert written[3]["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 3 + 1?"},
    ]
    assert (written[3]["ability"], written[3]["extra_info"]["level"]) == ("math", 0)
    for teacher in ("tied", "untied"):
        sampled = [answer for path in built.shards(teacher) if "answers" in path.name for answer in read(path)]
        assert {answer["sample"] for answer in sampled} == {0, 1, 2}
        by_uid: dict[str, set[str]] = {}
        for answer in sampled:
            by_uid.setdefault(answer["uid"], set()).add(answer["text"])
        for row in written:
            for target in row["target_lst"]:
                if target["source"] == teacher:
                    assert target["content"] in by_uid[row["extra_info"]["uid"]]


def read(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def answers_of(built: Any) -> dict[str, Any]:
    return {path.name: read(path) for path in built.run.glob("out/*.parquet")}


def test_shards_decide_nothing(built: Any, build: Callable[..., Any]) -> None:
    other = build(shard_questions=7)
    other()
    assert answers_of(other) == answers_of(built)
    assert other.summary == built.summary


def test_a_teacher_that_cannot_read_its_questions_is_found_before_another_answers(
    build: Callable[..., Any], tmp_path: Path
) -> None:
    short = build()
    with pytest.raises(ConfigError, match=r"teachers\.untied\.max_response_tokens: found 511; .* 512 positions"):
        short("teachers.2.max_response_tokens=511")
    template = tmp_path / "template.jinja"
    template.write_text("{{ raise_exception('no system') }}")
    with pytest.raises(ConfigError, match="teacher untied: the chat template refuses"):
        short(f"teachers.2.model.chat_template={template}")
    assert not short.run.exists()


class Crash(BaseException):
    """As final as SIGKILL for a build, which cleans nothing up."""


@pytest.mark.parametrize("moment", [1, 8, 18])
def test_a_build_that_dies_goes_on_and_ends_with_the_same_files(
    moment: int, built: Any, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    replace, count = os.replace, 0

    def dying(source: Any, target: Any) -> None:
        nonlocal count
        count += str(target).endswith(".parquet")
        if count == moment:
            raise Crash
        replace(source, target)

    broken = build()
    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(Crash):
        broken()
    monkeypatch.setattr(os, "replace", replace)
    before = {path: path.stat().st_mtime_ns for path in broken.run.glob("shards/*/*.parquet")}
    assert len(before) == moment - 1
    broken()
    assert "goes on with what is there" in broken.said
    assert broken.files() == built.files()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    broken()
    assert "is finished already" in broken.said


def test_the_result_is_written_under_the_lock_and_what_fails_there_failed_while_running(
    built: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = built.copy(tmp_path)

    def refusing(*arguments: Any) -> None:
        assert (again.run / ".lock").is_file()
        raise DataError("no such rows")

    monkeypatch.setattr("ampo_core.jobs.pool.output.write_questions", refusing)
    with pytest.raises(RunError, match="no such rows"):
        again("keep=all", allow=True)
    assert not (again.run / ".lock").exists()


def test_a_changed_config_is_refused_with_the_difference(built: Any, tmp_path: Path) -> None:
    again = built.copy(tmp_path)
    with pytest.raises(ConfigError, match=r"teachers\.untied\.temperature: 1\.0 -> 0\.5"):
        again("teachers.2.temperature=0.5")
    (again.run / "done").unlink()
    with pytest.raises(ConfigError, match="keep: 'shortest' -> 'first'"):
        again("keep=first")


def test_another_choice_and_a_further_teacher_sample_nothing_again(built: Any, tmp_path: Path, world: Any) -> None:
    again = built.copy(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in again.run.glob("shards/*/*.parquet")}
    again("keep=all", "unify=every_teacher", allow=True)
    assert "teacher tied: 3 of 3 shards are there already" in again.said
    assert "keep: 'shortest' -> 'all'" in again.said
    assert (again.run / "history").is_dir()
    count = again.summary["compositions"]["all"]
    assert count["questions"] == again.summary["answered_by"]["3"]
    assert len(read(again.run / "out" / "all.parquet")) == count["questions"]
    again.config = {**world, "teachers": [*world["teachers"], {"name": "page", "recorded": "book"}], "compositions": {}}
    again(allow=True)
    assert again.summary["teachers"]["page"]["answers"] == 20
    after = {path.name: path.stat().st_mtime_ns for path in again.run.glob("shards/*/*.parquet")}
    assert all(after[name] == stamp for name, stamp in before.items() if "verdicts" not in name or name in after)
    assert {path.name for path in (again.run / "out").iterdir()} == {"train.parquet", "sft.parquet"}


def test_more_questions_reuse_the_whole_shards(built: Any, build: Callable[..., Any]) -> None:
    small = build(data={"max_prompt_tokens": 64, "limit": 4})
    small()
    assert small.summary["questions"]["beyond_limit"] == 7
    first = small.shards("tied")
    stamps = [path.stat().st_mtime_ns for path in first]
    small.config = built.config
    small(allow=True)
    assert [path.stat().st_mtime_ns for path in first] == stamps
    assert answers_of(small) == answers_of(built)


def test_a_teacher_that_is_sampled_otherwise_keeps_its_old_answers_apart(built: Any, tmp_path: Path) -> None:
    again = built.copy(tmp_path)
    again("teachers.0.temperature=0.7", allow=True)
    assert len(list(again.run.glob("shards/tied-*"))) == 2
    assert len(list(again.run.glob("shards/untied-*"))) == 1
    again(allow=True)
    assert answers_of(again) == answers_of(built)
    assert "teacher tied: 3 of 3 shards are there already" in again.said


def test_another_reward_grades_again_what_was_sampled(built: Any, tmp_path: Path) -> None:
    again = built.copy(tmp_path)
    sampled = {path: path.stat().st_mtime_ns for path in again.run.glob("shards/*/*.answers.parquet")}
    again("reward.one_in=1", allow=True)
    assert {path: path.stat().st_mtime_ns for path in sampled} == sampled
    assert len(list(again.run.glob("shards/tied-*/*verdicts*"))) == 6
    before, after = (sum(t["incorrect"] for t in b.summary["teachers"].values()) for b in (built, again))
    assert after < before


def test_a_row_that_has_changed_is_verified_again_and_nothing_is_sampled(
    built: Any, tmp_path: Path, world: Any
) -> None:
    """A reward may read the whole row, of which a question's uid has text and truth only."""
    stale = next(path for path in built.shards("tied") if path.name.startswith("00001") and "verdicts" in path.name)
    refused = next(verdict["uid"] for verdict in read(stale) if verdict["correct"])
    uids = [row["extra_info"]["uid"] for row in read(built.run / "out" / "all.parquet")]
    rows = [json.loads(line) for line in Path(world["questions"][0]).read_text().splitlines()]
    rows[uids.index(refused)]["extra_info"]["refused"] = True
    changed = tmp_path / "questions.jsonl"
    changed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = built.copy(tmp_path)
    teachers = [teacher for teacher in world["teachers"] if "model" in teacher]
    again.config = {**world, "questions": [str(changed)], "teachers": teachers, "compositions": {}}
    before = {path: path.stat().st_mtime_ns for path in again.shards("tied")}
    again(allow=True)
    (new,) = (path for path in again.shards("tied") if path not in before)
    assert new.name.startswith("00001") and "verdicts" in new.name  # noqa: PT018
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not any(verdict["correct"] for verdict in read(new) if verdict["uid"] == refused)
    written = {row["extra_info"]["uid"]: row["target_lst"] for row in read(again.run / "out" / "train.parquet")}
    assert not written[refused]
    assert any(written.values())


def test_a_verifier_that_fails_once_is_asked_again(built: Any, tmp_path: Path) -> None:
    again = built.copy(tmp_path)
    (tmp_path / "seen").mkdir()
    again(f"reward.hesitate={tmp_path / 'seen'}", allow=True)
    assert list((tmp_path / "seen").iterdir())
    assert answers_of(again) == answers_of(built)
    assert again.summary == built.summary


def test_unify_keeps_what_every_composition_answers(built: Any, tmp_path: Path) -> None:
    again = built.copy(tmp_path)
    again("unify=intersection", allow=True)
    rows = {path.stem: read(path) for path in again.run.glob("out/[!s]*.parquet")}
    uids = {name: [row["extra_info"]["uid"] for row in found] for name, found in rows.items()}
    assert uids["all"] == uids["book"] == uids["models"]
    assert 0 < len(uids["all"]) < 10
    assert all(row["target_lst"] for found in rows.values() for row in found)
    summary = again.summary
    assert summary["questions"]["removed_by_unify"] == 10 - len(uids["all"])
    removed = {name: count["answers_removed_by_unify"] for name, count in summary["compositions"].items()}
    kept = {name: count["answers"] for name, count in built.summary["compositions"].items()}
    assert all(summary["compositions"][name]["answers"] + removed[name] == kept[name] for name in kept)


def test_a_pool_without_any_question_left_says_why_and_keeps_the_answers(built: Any, tmp_path: Path) -> None:
    again = built.copy(tmp_path)
    with pytest.raises(RunError, match="unify: intersection leaves no question"):
        again("unify=intersection", "max_tokens=1", allow=True)
    teachers = json.loads((again.run / "summary.json").read_text())["teachers"]
    assert all(teacher["too_long"] > 0 and teacher["kept"] == 0 for teacher in teachers.values())
    assert len(again.shards("tied")) == 6


def test_logprobs_are_recorded_where_the_tokens_are_the_students(build: Callable[..., Any], tiny_model: Path) -> None:
    recorded = build(record_logprobs=True, compositions={}, keep="all", answers_per_question=6)
    recorded("reward.one_in=1")
    tokenizer = load_tokenizer(ModelConfig(path=str(tiny_model)))
    path = recorded.run / "out" / "train.parquet"
    options = {"max_prompt_tokens": 64, "overlong_prompts": "drop", "system_prompt": "keep", "check_truths": None}
    counts: Counter[str] = Counter()
    for question in load_questions([path], tokenizer, **options).questions:
        for answer in Dataset().answers(question):
            if answer.logprobs is not None:
                counts[answer.teacher] += 1
                length = len(tokenizer.answer_ids(answer.text, question.prompt_token_ids))
                assert len(answer.logprobs) in (length - 1, length)
                assert all(value <= 0 for value in answer.logprobs)
    teachers = recorded.summary["teachers"]
    assert counts["tied"] == teachers["tied"]["with_logprobs"] > 0
    for name in ("tied", "untied"):
        found = teachers[name]
        assert found["with_logprobs"] + found["logprobs_of_other_tokens"] == found["kept"]
        assert found["logprobs_of_other_tokens"] > 0
    assert "kept answers are without log-probs" in recorded.said
    assert teachers["book"]["with_logprobs"] == counts["book"] == 0


@pytest.mark.parametrize("complete", [True, False])
def test_the_line_that_a_template_has_opened_is_part_of_the_answer(
    complete: bool, build: Callable[..., Any], golden_tokenizer: Any, tmp_path: Path
) -> None:
    template = tmp_path / "thinking.jinja"
    template.write_text(golden_tokenizer.chat_template.replace("assistant\n", "assistant\n<think>\n"))
    thinking = build()
    one = f"teachers.0.model.chat_template={template}"
    thinking(one, "data.limit=4", "reward.one_in=1", f"teachers.0.complete_thinking={str(complete).lower()}")
    texts = {
        teacher: [row["text"] for path in thinking.shards(teacher) if "answers" in path.name for row in read(path)]
        for teacher in ("tied", "untied")
    }
    assert all(text.startswith("<think>\n") is complete for text in texts["tied"])
    assert not any(text.startswith("<think>") for text in texts["untied"])


def test_a_recorded_teacher_whom_no_row_knows_is_refused_before_anyone_answers(build: Callable[..., Any]) -> None:
    made = build(teachers=[{"name": "book", "recorded": "bok"}], compositions={})
    with pytest.raises(
        DataError, match=r"teachers\.0\.recorded: no question has an answer of 'bok'; did you mean book"
    ):
        made()
    assert not (made.run / "config.yaml").exists()
