"""The `prepare` job: a small world made, graded and written for real."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import (
    ConfigError,
    DataError,
    Grade,
    GradeRequest,
    Message,
    RewardSpec,
    TaskData,
    TaskQuestion,
    TeacherAnswer,
)

from ampo_core.cli.main import main
from ampo_core.config.tree import ModelConfig
from ampo_core.data.questions import load_questions
from ampo_core.data.report import TruthCheck
from ampo_core.data.tokens import PromptTokenizer, load_tokenizer
from ampo_core.grading.grader import Grader
from ampo_core.jobs.prepare import check_truths, grade_pool, run, summarise
from ampo_core.jobs.prepare_data import write_data

pytestmark = pytest.mark.process


class Exact(RewardSpec):
    """Correct iff the response ends with the truth; a response that says TIMEOUT has none."""

    type: Literal["exact"] = "exact"

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        return [self.combine(request.text.endswith(request.answer), True) for request in requests]

    def check_truth(self, answer: str) -> str | None:
        return None if answer else "it is empty"


class InProcess:
    """Grades like Grader, without workers: what the job does with verdicts is the subject, not how they are made.

    A response that says TWICE has a verdict at a second try.
    """

    def grade(self, requests: Sequence[GradeRequest], tries: int = 1) -> list[Grade]:
        grades = Exact().grade(requests)
        slow = Grade(0.0, False, True, status="timeout")
        fails = [("TIMEOUT" in request.text) or ("TWICE" in request.text and tries < 2) for request in requests]
        return [slow if failed else grade for failed, grade in zip(fails, grades, strict=True)]

    def check_truths(self, answers: Sequence[str]) -> list[TruthCheck]:
        return [TruthCheck(refused=Exact().check_truth(answer)) for answer in answers]


def question(text: str, answer: str, **answers: str | list[str]) -> TaskQuestion:
    pairs = [(name, text) for name, found in answers.items() for text in ([found] if isinstance(found, str) else found)]
    teachers = tuple(TeacherAnswer(name, text) for name, text in pairs)
    return TaskQuestion((Message("user", text),), answer, "src", {"level": 1}, teachers)


QUESTIONS = (
    question("a", "7", long=["because 7", "7"], wrong="8", slow=["TIMEOUT 7", "TWICE 7"]),
    question("b", "9", long="9"),
    question("c", "5"),
)


def characters(question: TaskQuestion, text: str) -> int:
    return len(text)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, environment_of: Callable[..., Any]) -> Path:
    folder = tmp_path_factory.mktemp("prepare")
    config = folder / "prepare.yaml"
    config.write_text(
        "job: prepare\n"
        f"run: {{name: world, dir: {folder}, seed: 3}}\n"
        "task: {type: labelled_arithmetic, questions: 20, heldout_per_level: 4, warmup_examples: 30}\n"
        "reward: {type: math_verify, workers: 1, timeout_s: 60}\n"
    )
    job, environment = environment_of(config)
    return run(job, environment)


def test_each_teachers_shortest_correct_answer_is_kept_and_the_rest_counted() -> None:
    pool = grade_pool(QUESTIONS, InProcess(), characters, "characters", "task")  # type: ignore[arg-type]
    assert [[answer.text for answer in kept] for kept in pool.answers] == [["7", "TWICE 7"], ["9"], []]
    summary = summarise(TaskData(QUESTIONS, {}), pool, has_model=False)
    assert summary["questions_without_answer"] == 1
    assert summary["teachers"]["long"] == {
        "answers": 3,
        "kept": 2,
        "dropped_incorrect": 0,
        "dropped_not_graded": 0,
        "dropped_longer": 1,
        "mean_characters": 1.0,
    }
    assert summary["teachers"]["wrong"]["dropped_incorrect"] == 1
    assert summary["teachers"]["slow"]["dropped_not_graded"] == 1
    assert summary["conversations"] == 3


def test_a_teachers_answer_is_graded_with_the_row_that_training_will_read(
    tmp_path: Path, golden_tokenizer: Any
) -> None:
    asked: list[GradeRequest] = []

    class Listening(InProcess):
        def grade(self, requests: Sequence[GradeRequest], tries: int = 1) -> list[Grade]:
            asked.extend(requests)
            return super().grade(requests, tries)

    questions = (replace(QUESTIONS[0], scored_answer="seven"), *QUESTIONS[1:])
    pool = grade_pool(questions, Listening(), characters, "characters", "toy")  # type: ignore[arg-type]
    write_data(tmp_path, TaskData(questions, {}), pool.answers, "toy")
    tokenizer = PromptTokenizer(golden_tokenizer, ModelConfig(path="tests/golden/tokenizer"))
    options = {"max_prompt_tokens": 64, "overlong_prompts": "drop", "system_prompt": "keep", "check_truths": None}
    read = {q.uid: q for q in load_questions([tmp_path / "train.parquet"], tokenizer, **options).questions}
    assert [q.scored_answer for q in read.values()] == ["seven", None, None]
    for request in asked:
        trained = GradeRequest.of(read[request.uid], request.text)
        made: Any = {name: value for name, value in trained.extra["extra_info"].items() if name != "num_teacher_models"}
        filled: Any = {"scored_answer": None, **request.extra["reward_model"]}
        assert replace(trained, extra={}) == replace(request, extra={})
        assert {**request.extra, "reward_model": filled} == {**trained.extra, "extra_info": made}


def test_without_examples_of_its_own_every_kept_answer_is_imitated(tmp_path: Path) -> None:
    data = TaskData(QUESTIONS, {})
    pool = grade_pool(QUESTIONS, InProcess(), characters, "characters", "task")  # type: ignore[arg-type]
    write_data(tmp_path, data, pool.answers, "toy")
    rows = pq.read_table(tmp_path / "sft.parquet").to_pylist()
    assert [[turn["content"] for turn in row["messages"]] for row in rows] == [["a", "7"], ["a", "TWICE 7"], ["b", "9"]]
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"]


def test_recorded_logprobs_are_written(tmp_path: Path) -> None:
    recorded = TeacherAnswer("t", "7", logprobs=(-0.5, -1.0), quality_score=0.25)
    data = TaskData((TaskQuestion((Message("user", "a"),), "7", "src", {}, (recorded,)),), {})
    pool = grade_pool(data.train, InProcess(), characters, "characters", "task")  # type: ignore[arg-type]
    write_data(tmp_path, data, pool.answers, "toy")
    target = pq.read_table(tmp_path / "train.parquet").to_pylist()[0]["target_lst"][0]
    assert target == {
        "role": "assistant",
        "content": "7",
        "source": "t",
        "quality_score": 0.25,
        "logprobs": [-0.5, -1.0],
    }


def test_a_ground_truth_that_cannot_be_verified_is_refused() -> None:
    data = TaskData(QUESTIONS, {"easy": (question("d", ""),)})
    with pytest.raises(DataError, match="easy, question 1: ground truth '': it is empty"):
        check_truths(data, InProcess())  # type: ignore[arg-type]


def test_a_task_without_questions_is_refused() -> None:
    with pytest.raises(DataError, match="no training question"):
        check_truths(TaskData((), {}), InProcess())  # type: ignore[arg-type]


def test_the_data_contract_is_written(prepared: Path) -> None:
    rows = pq.read_table(prepared / "train.parquet").to_pylist()
    assert len(rows) == 20
    row = next(row for row in rows if len(row["target_lst"]) > 1)
    assert row["data_source"] == row["ability"] == "labelled_arithmetic"
    assert [turn["role"] for turn in row["prompt"]] == ["user"]
    assert row["reward_model"]["style"] == "rule"
    assert row["extra_info"]["split"] == "train"
    assert row["extra_info"]["num_teacher_models"] == len(row["target_lst"])
    assert {target["source"] for target in row["target_lst"]} <= {"chain", "verbose", "terse", "cipher"}
    held_out = pq.read_table(prepared / "heldout" / "level6.parquet")
    assert held_out.num_rows == 4
    assert "target_lst" not in held_out.column_names
    assert pq.read_table(prepared / "sft.parquet").num_rows == 30


def test_what_is_written_loads_and_every_kept_answer_is_correct(prepared: Path) -> None:
    tokenizer = load_tokenizer(ModelConfig(path=str(prepared / "model")))
    with Grader(MathVerify(workers=1, timeout_s=60)) as grader:
        loaded = load_questions(
            [prepared / "train.parquet"],
            tokenizer,
            max_prompt_tokens=64,
            overlong_prompts="drop",
            system_prompt="keep",
            check_truths=grader.check_truths,
        )
        requests = [
            GradeRequest(answer.text, question.answer) for question in loaded.questions for answer in question.answers
        ]
        assert all(grade.correct for grade in grader.grade(requests))
    assert len(loaded.questions) == 20
    assert len(requests) > 40


def test_the_summary_counts_everything(prepared: Path) -> None:
    summary = json.loads((prepared.parent / "summary.json").read_text())
    assert summary["questions"] == 20
    assert summary["heldout"] == {f"level{level}": 4 for level in range(2, 7)}
    assert summary["model"] is True
    for counts in summary["teachers"].values():
        assert counts["kept"] == counts["answers"] > 0
    assert summary["teachers"]["chain"]["mean_tokens"] < summary["teachers"]["verbose"]["mean_tokens"]


def test_the_same_seed_writes_the_same_files(
    prepared: Path, tmp_path: Path, environment_of: Callable[..., Any]
) -> None:
    config = prepared.parents[1] / "prepare.yaml"
    again = run(*environment_of(config, {"run.dir": str(tmp_path)}))
    for name in ("train.parquet", "sft.parquet", "heldout/level2.parquet", "model/model.safetensors"):
        assert (again / name).read_bytes() == (prepared / name).read_bytes()


def test_an_out_folder_with_other_files_is_refused(tmp_path: Path, environment_of: Callable[..., Any]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep me")
    config = tmp_path / "prepare.yaml"
    config.write_text(f"job: prepare\nrun: {{name: w, dir: {tmp_path}}}\ntask: labelled_arithmetic\nout: {out}\n")
    with pytest.raises(ConfigError, match=r"out is there already and not empty"):
        run(*environment_of(config))
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert not (tmp_path / "w").exists()


def test_an_interrupted_job_leaves_no_out_and_starts_over(
    tmp_path: Path, environment_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data" / "world"
    config = tmp_path / "prepare.yaml"
    options = "questions: 6, heldout_per_level: 1, warmup_examples: 5"
    config.write_text(
        f"job: prepare\nrun: {{name: w, dir: {tmp_path}}}\ntask: {{type: labelled_arithmetic, {options}}}\nout: {out}\n"
    )

    def interrupt(folder: Path, *_: object, **__: object) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    job, environment = environment_of(config)
    with monkeypatch.context() as patch:
        patch.setattr("ampo_core.jobs.prepare.write_data", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(job, environment)
    assert not out.exists()
    assert (tmp_path / "data" / ".world.partial" / "half").exists()
    assert run(*environment_of(config, {"run.name": "again"})) == out
    assert {path.name for path in out.iterdir()} == {"train.parquet", "heldout", "sft.parquet", "model"}
    assert [path.name for path in out.parent.iterdir()] == ["world"]


def test_what_a_task_cannot_make_is_the_users_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "prepare.yaml"
    config.write_text(f"job: prepare\nrun: {{name: w, dir: {tmp_path}}}\ntask: labelled_arithmetic\n")
    assert main([str(config), "task.heldout_levels=[1]", "task.heldout_per_level=100000"]) == 2
    said = capfd.readouterr().err
    assert "task labelled_arithmetic: level 1 has too few distinct questions" in said
    assert "Traceback" not in said
    assert not (tmp_path / "w").exists()


def test_a_start_model_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, environment_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, folder: Path, seed: int) -> bool:
        folder.mkdir()
        raise ValueError("too wide")

    monkeypatch.setattr("ampo_plugins.tasks.labelled_arithmetic.spec.LabelledArithmetic.write_start_model", refuse)
    config = tmp_path / "prepare.yaml"
    config.write_text(
        f"job: prepare\nrun: {{name: w, dir: {tmp_path}}}\ntask: labelled_arithmetic\nout: {tmp_path}/o\n"
    )
    with pytest.raises(ConfigError, match="task labelled_arithmetic: too wide"):
        run(*environment_of(config, {"task.questions": 6, "task.heldout_per_level": 1, "task.warmup_examples": 5}))
    assert [path.name for path in tmp_path.iterdir()] == ["prepare.yaml"]
