"""The `prepare` job: a task plugin's world, its teacher answers graded, written in the data contract.

out/train.parquet          questions with each teacher's shortest correct answer
    heldout/NAME.parquet   questions of each held-out set
    sft.parquet            conversations (column `messages`)
    model/                 the task's start model, if it has one

All of it is written to `.out.partial` beside `out` and renamed at the end: an interrupted job leaves no `out`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError, DataError
from ampo_registry.protocols import Task
from ampo_registry.specs import component_name
from ampo_registry.types import Grade, GradeRequest, TaskData, TaskQuestion, TeacherAnswer

from ampo_core.checked.build import build
from ampo_core.config.jobs import PrepareJob
from ampo_core.config.tree import ModelConfig
from ampo_core.data.contract_files import questions_of
from ampo_core.data.report import listed_truths
from ampo_core.grading.grader import ANSWER_TRIES, Grader
from ampo_core.jobs.pool.choose import Judged, Tally, choose
from ampo_core.jobs.pool.shards import ENDED, Answer, Verdict
from ampo_core.jobs.prepare_data import TRAIN, write_data
from ampo_core.report.build import refresh_report
from ampo_core.run.disk import writing
from ampo_core.run.environment import Environment
from ampo_core.run.files import write_json
from ampo_core.run.folder import RunFolder, discard_unfinished
from ampo_core.run.lock import held
from ampo_core.run.manifest import build_manifest
from ampo_core.run.progress import say
from ampo_core.run.resume import start_over

Measure = Callable[[TaskQuestion, str], int]


@dataclass(frozen=True, slots=True)
class Pool:
    """For each training question its kept answers, in the task's order of teachers, and what became of each teacher's.
    Lengths are in `unit`."""

    answers: tuple[tuple[TeacherAnswer, ...], ...]
    teachers: Mapping[str, Tally]
    unit: str


def run(job: PrepareJob, environment: Environment) -> Path:
    """Make, grade and write the task's data; returns the folder it was written to.

    Raises ConfigError if that folder is not empty or the task refuses its options, DataError if the task makes
    nothing or a ground truth that no response could be verified against.
    """
    with held(job.run.folder):
        start_over(job.run.folder, environment)
        return _make(job, environment)


def _make(job: PrepareJob, environment: Environment) -> Path:
    out = Path(job.out) if job.out else job.run.folder / "out"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"out: {out} is there already and not empty; name another folder or remove it")
    name = component_name(type(job.task))
    task: Task = build(job.task, environment.build_context())
    data = task.make(job.run.seed)
    with Grader(job.reward) as grader:
        say(environment.console, *check_truths(data, grader))
        manifest = build_manifest(job="prepare", seed=job.run.seed, plugins=environment.plugins.distributions)
        folder = RunFolder.create(job.run, environment.yaml, manifest)
        unfinished = _unfinished(out)
        try:
            with writing(out, unfinished):
                summary = _fill(unfinished, task, data, grader, name, job.run.seed)
        except ConfigError:
            shutil.rmtree(unfinished, ignore_errors=True)
            discard_unfinished(folder.path)
            raise
        write_json(folder.path / "summary.json", summary)
        say(environment.console, *summary_lines(summary, out))
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
        output = folder.finish(out)
        refresh_report(folder.path, partial(say, environment.console))
        return output


def _fill(folder: Path, task: Task, data: TaskData, grader: Grader, name: str, seed: int) -> dict[str, Any]:
    """Write everything into `folder`, emptied before, and return the summary."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"out: cannot make {folder}: {error.strerror}") from error
    has_model = task.write_start_model(folder / "model", seed)
    measure, unit = _token_measure(folder / "model") if has_model else (_characters, "characters")
    pool = grade_pool(data.train, grader, measure, unit, name)
    write_data(folder, data, pool.answers, ability=name)
    return summarise(data, pool, has_model)


def _unfinished(out: Path) -> Path:
    """The folder beside `out` that becomes it."""
    path = Path(os.path.abspath(out))
    return path.with_name(f".{path.name}.partial")


def grade_pool(questions: Sequence[TaskQuestion], grader: Grader, measure: Measure, unit: str, ability: str) -> Pool:
    """Grade every teacher answer and keep each teacher's shortest correct one (the first of equals)."""
    requests = [
        GradeRequest.of(row, answer.text)
        for row, question in zip(questions_of(questions, TRAIN, ability), questions, strict=True)
        for answer in question.teacher_answers
    ]
    grades = iter(grader.grade(requests, ANSWER_TRIES))
    tallies: dict[str, Tally] = {}
    kept = tuple(
        _shortest_correct(question, [next(grades) for _ in question.teacher_answers], measure, tallies)
        for question in questions
    )
    return Pool(kept, tallies, unit)


def _shortest_correct(
    question: TaskQuestion, grades: Sequence[Grade], measure: Measure, tallies: dict[str, Tally]
) -> tuple[TeacherAnswer, ...]:
    judged: dict[str, list[Judged]] = {}
    for index, (answer, grade) in enumerate(zip(question.teacher_answers, grades, strict=True)):
        verdict = Verdict("", index, grade.correct, grade.status)
        judged.setdefault(answer.teacher, []).append(Judged(Answer("", index, answer.text, ENDED), verdict))
    kept = [
        item.answer.sample
        for teacher, answers in judged.items()
        for item in choose(answers, "shortest", partial(measure, question), None, tallies.setdefault(teacher, Tally()))
    ]
    return tuple(question.teacher_answers[index] for index in kept)


def check_truths(data: TaskData, grader: Grader) -> list[str]:
    """What is to be said of ground truths that are kept all the same.

    Raises DataError if there is no training question, or a ground truth that nothing could be verified against.
    """
    if not data.train:
        raise DataError("the task made no training question")
    sets = {"train": data.train, **data.heldout}
    truths = list(dict.fromkeys(question.answer for questions in sets.values() for question in questions))
    checks = dict(zip(truths, grader.check_truths(truths), strict=True))
    for name, questions in sets.items():
        for number, question in enumerate(questions, start=1):
            if reason := checks[question.answer].refused:
                raise DataError(f"the task's {name}, question {number}: ground truth {question.answer!r}: {reason}")
    return listed_truths(checks)


def _token_measure(model: Path) -> tuple[Measure, str]:
    from ampo_core.data.tokens import load_tokenizer

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
                "answers": tally.answers,
                "kept": tally.fates["kept"],
                "dropped_incorrect": tally.fates["incorrect"],
                "dropped_not_graded": tally.fates["not_graded"],
                "dropped_longer": tally.fates["not_chosen"],
                f"mean_{pool.unit}": tally.mean_kept,
            }
            for name, tally in pool.teachers.items()
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
