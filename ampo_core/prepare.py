"""The `prepare` job: a task plugin's world, its teacher answers graded, written in the data contract.

out/train.parquet          questions with each teacher's shortest correct answer
    heldout/NAME.parquet   questions of each held-out set
    sft.parquet            conversations (column `messages`)
    model/                 the task's start model, if it has one
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ampo_registry.errors import ConfigError, DataError
from ampo_registry.specs import component_name
from ampo_registry.types import Grade, GradeRequest, Message, TaskData, TaskQuestion, TeacherAnswer

from ampo_core.config.jobs import PrepareJob
from ampo_core.config.tree import ModelConfig
from ampo_core.environment import Environment
from ampo_core.grading import Grader
from ampo_core.manifest import build_manifest
from ampo_core.runfolder import RunFolder, write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

Measure = Callable[[TaskQuestion, str], int]


@dataclass(slots=True)
class TeacherCount:
    """What became of one teacher's answers. `length` sums the kept ones, in the unit of the summary."""

    answers: int = 0
    incorrect: int = 0
    failed: int = 0
    longer: int = 0
    kept: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True)
class Pool:
    """For each training question its kept answers, in the task's order of teachers, and the counts."""

    answers: tuple[tuple[TeacherAnswer, ...], ...]
    teachers: Mapping[str, TeacherCount]
    unit: str


def run(job: PrepareJob, environment: Environment) -> Path:
    """Make, grade and write the task's data; returns the folder it was written to.

    Raises ConfigError if that folder is not empty, DataError if the task makes nothing or a ground truth that no
    response could be verified against.
    """
    out = Path(job.out) if job.out else Path(job.run.dir) / job.run.name / "out"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"out: {out} is there already and not empty; name another folder or remove it")
    task = job.task.build(environment.build_context())
    data = task.make(job.run.seed)
    with Grader(job.reward) as grader:
        check_truths(data, grader)
        manifest = build_manifest(job="prepare", seed=job.run.seed, plugins=environment.plugins.distributions)
        folder = RunFolder.create(job.run, environment.yaml, manifest)
        out.mkdir(parents=True, exist_ok=True)
        has_model = task.write_start_model(out / "model", job.run.seed)
        measure, unit = _token_measure(out / "model") if has_model else (_characters, "characters")
        pool = grade_pool(data.train, grader, measure, unit)
    write_data(out, data, pool, ability=component_name(type(job.task)))
    summary = summarise(data, pool, has_model)
    write_atomically(folder.path / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    for line in summary_lines(summary, out):
        environment.console.print(line, markup=False, highlight=False, soft_wrap=True)
    return folder.finish(out)


def grade_pool(questions: Sequence[TaskQuestion], grader: Grader, measure: Measure, unit: str) -> Pool:
    """Grade every teacher answer and keep each teacher's shortest correct one (the first of equals)."""
    requests = [
        GradeRequest(answer.text, question.answer, question.source)
        for question in questions
        for answer in question.teacher_answers
    ]
    grades = iter(grader.grade(requests))
    counts: dict[str, TeacherCount] = {}
    kept = tuple(
        _shortest_correct(question, [next(grades) for _ in question.teacher_answers], measure, counts)
        for question in questions
    )
    return Pool(kept, counts, unit)


def _shortest_correct(
    question: TaskQuestion, grades: Sequence[Grade], measure: Measure, counts: dict[str, TeacherCount]
) -> tuple[TeacherAnswer, ...]:
    best: dict[str, tuple[int, TeacherAnswer]] = {}
    for answer, grade in zip(question.teacher_answers, grades, strict=True):
        count = counts.setdefault(answer.teacher, TeacherCount())
        count.answers += 1
        if grade.status != "ok":
            count.failed += 1
        elif not grade.correct:
            count.incorrect += 1
        else:
            length = measure(question, answer.text)
            if answer.teacher in best:
                count.longer += 1
            if answer.teacher not in best or length < best[answer.teacher][0]:
                best[answer.teacher] = (length, answer)
    for teacher, (length, _) in best.items():
        counts[teacher].kept += 1
        counts[teacher].length += length
    return tuple(answer for _, answer in best.values())


def write_data(out: Path, data: TaskData, pool: Pool, ability: str) -> None:
    """Write train.parquet, heldout/NAME.parquet and, where there is something to imitate, sft.parquet."""
    import pyarrow as pa

    _write(out / "train.parquet", _contract_table(data.train, "train", ability, pool.answers))
    (out / "heldout").mkdir()
    for name, questions in data.heldout.items():
        _write(out / "heldout" / f"{name}.parquet", _contract_table(questions, name, ability))
    conversations = data.sft or [
        (*question.messages, Message("assistant", answer.text))
        for question, answers in zip(data.train, pool.answers, strict=True)
        for answer in answers
    ]
    if conversations:
        turns = pa.array([_turns(conversation) for conversation in conversations], pa.list_(_message_type()))
        _write(out / "sft.parquet", pa.table({"messages": turns}))


def _contract_table(
    questions: Sequence[TaskQuestion],
    split: str,
    ability: str,
    answers: Sequence[Sequence[TeacherAnswer]] | None = None,
) -> pa.Table:
    import pyarrow as pa

    columns = {
        "data_source": pa.array([question.source for question in questions], pa.string()),
        "prompt": pa.array([_turns(question.messages) for question in questions], pa.list_(_message_type())),
        "ability": pa.array([ability] * len(questions), pa.string()),
        "reward_model": pa.array([{"ground_truth": question.answer, "style": "rule"} for question in questions]),
        "extra_info": _extra_info(questions, split, answers),
    }
    if answers is not None:
        columns["target_lst"] = _targets(answers)
    return pa.table(columns)


def _extra_info(
    questions: Sequence[TaskQuestion], split: str, answers: Sequence[Sequence[TeacherAnswer]] | None
) -> pa.Array:
    import pyarrow as pa

    rows: list[dict[str, object]] = [
        {**question.extra, "index": index, "split": split} for index, question in enumerate(questions)
    ]
    for row, kept in zip(rows, answers or (), strict=answers is not None):
        row["num_teacher_models"] = len(kept)
    try:
        return pa.array(rows)
    except pa.ArrowException as error:
        raise DataError(f"the task's `extra` fields cannot be written to Parquet ({split}): {error}") from error


def _targets(answers: Sequence[Sequence[TeacherAnswer]]) -> pa.Array:
    import pyarrow as pa

    fields = [*_message_type(), pa.field("source", pa.string()), pa.field("quality_score", pa.float64())]
    recorded = any(answer.logprobs is not None for kept in answers for answer in kept)
    if recorded:
        fields.append(pa.field("logprobs", pa.list_(pa.float64())))
    rows = [[_target(answer, recorded) for answer in kept] for kept in answers]
    return pa.array(rows, pa.list_(pa.struct(fields)))


def _target(answer: TeacherAnswer, recorded: bool) -> dict[str, Any]:
    target: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text,
        "source": answer.teacher,
        "quality_score": answer.quality_score,
    }
    return {**target, "logprobs": answer.logprobs} if recorded else target


def _message_type() -> pa.StructType:
    import pyarrow as pa

    return pa.struct([("role", pa.string()), ("content", pa.string())])


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path)


def check_truths(data: TaskData, grader: Grader) -> None:
    """Raise DataError if there is no training question, or a ground truth that nothing could be verified against."""
    if not data.train:
        raise DataError("the task made no training question")
    sets = {"train": data.train, **data.heldout}
    truths = list(dict.fromkeys(question.answer for questions in sets.values() for question in questions))
    checks = dict(zip(truths, grader.check_truths(truths), strict=True))
    for name, questions in sets.items():
        for number, question in enumerate(questions, start=1):
            if reason := checks[question.answer].refused:
                raise DataError(f"the task's {name}, question {number}: ground truth {question.answer!r}: {reason}")


def _token_measure(model: Path) -> tuple[Measure, str]:
    from ampo_core.tokens import load_tokenizer

    tokenizer = load_tokenizer(ModelConfig(path=str(model)))

    def tokens(question: TaskQuestion, text: str) -> int:
        return len(tokenizer.answer_ids(text, tokenizer.prompt_ids(question.messages)))

    return tokens, "tokens"


def _characters(question: TaskQuestion, text: str) -> int:
    return len(text)


def summarise(data: TaskData, pool: Pool, has_model: bool) -> dict[str, Any]:
    """What was made and what became of it, in JSON types."""
    return {
        "questions": len(data.train),
        "questions_without_answer": sum(not kept for kept in pool.answers),
        "heldout": {name: len(questions) for name, questions in data.heldout.items()},
        "conversations": len(data.sft) or sum(map(len, pool.answers)),
        "model": has_model,
        "teachers": {
            name: {
                "answers": count.answers,
                "kept": count.kept,
                "dropped_incorrect": count.incorrect,
                "dropped_not_graded": count.failed,
                "dropped_longer": count.longer,
                f"mean_{pool.unit}": round(count.length / count.kept, 1) if count.kept else None,
            }
            for name, count in pool.teachers.items()
        },
    }


def summary_lines(summary: Mapping[str, Any], out: Path) -> list[str]:
    """The summary for a person."""
    heldout = ", ".join(f"{name} {count}" for name, count in summary["heldout"].items()) or "none"
    lines = [
        f"{summary['questions']} training questions, {summary['questions_without_answer']} of them without a teacher "
        f"answer; held out: {heldout}; {summary['conversations']} conversations"
    ]
    for name, counts in summary["teachers"].items():
        parts = [f"{key.replace('_', ' ')} {value}" for key, value in counts.items() if value]
        lines.append(f"teacher {name}: " + ", ".join(parts))
    return [*lines, f"written to {out}"]
