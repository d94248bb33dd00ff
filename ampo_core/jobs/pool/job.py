"""The `pool` job: every teacher answers every question, what verifies is chosen from, and a pool is written.

RUN/shards/         what was sampled and verified, shard by shard (shards.py); an interrupted build goes on from it
    out/NAME.parquet      a composition of teachers: questions with the answers that were kept (train, and sft with
                          format: pool)
        sft_NAME.parquet  every (question, kept answer) pair as a conversation (sft with format: messages)
    summary.json    what became of every answer and question

Without `compositions` the two files of the one composition of all teachers are train.parquet and sft.parquet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ampo_registry.errors import DataError
from ampo_registry.specs import build_options
from ampo_registry.types import Grade, GradeRequest, Question

from ampo_core.config.nodes import nearest
from ampo_core.config.pool_job import PoolJob, PoolTeacher
from ampo_core.data.layouts import RowReader
from ampo_core.data.questions import load_questions
from ampo_core.data.tokens import PromptTokenizer, load_tokenizer
from ampo_core.distributed.together import by_each, by_first
from ampo_core.grading.grader import ANSWER_TRIES, Grader
from ampo_core.jobs.pool.asking import Reader
from ampo_core.jobs.pool.output import PoolOutput
from ampo_core.jobs.pool.shards import ENDED, Answer, Shard, TeacherShards, Verdict, cut
from ampo_core.jobs.pool.sources import Source, about, open_source, recipe
from ampo_core.report.build import refresh_report
from ampo_core.run.environment import Environment
from ampo_core.run.folder import RunFolder, begun
from ampo_core.run.manifest import build_manifest, hash_questions
from ampo_core.run.progress import Progress, Reading, say
from ampo_core.run.resume import open_again

if TYPE_CHECKING:
    from ampo_core.distributed.ranks import Ranks

HOW_IT_IS_GRADED = ("workers", "max_error_rate")
"""Options of a reward that change no verdict."""


def run(job: PoolJob, environment: Environment) -> Path:
    """Build the pool, or go on with an interrupted build; returns the folder `out`. Every rank calls it.

    Raises ConfigError and DataError before anything is written; RunError where sampling or verifying fails, after
    which the same command goes on with the first shard that is missing.
    """
    from ampo_core.distributed.ranks import join_ranks

    ranks = join_ranks(job.resources.threads)
    with ExitStack() as stack:
        grader = stack.enter_context(Grader(job.reward, partial(say, environment.console)))
        student = load_tokenizer(job.student, environment.trust_remote_code)
        loaded = load_questions(
            job.questions,
            student,
            max_prompt_tokens=job.data.max_prompt_tokens,
            overlong_prompts="drop",
            system_prompt=job.data.system_prompt,
            check_truths=partial(ranks.map, grader.check_truths),
            reader=RowReader.of(job.data),
            where=job.data.where,
            distinct=True,
            limit=job.data.limit,
            watch=stack.enter_context(Reading(environment.console)),
        )
        _check_recorded(job, loaded.questions)
        readers = _readers(job, loaded.questions, environment.trust_remote_code)
        folder = by_first(ranks, lambda: _open(job, environment, loaded.questions, stack))
        stack.enter_context(begun())
        shards = cut(loaded.questions, job.shard_questions)
        if ranks.rank == 0:
            say(environment.console, *loaded.report.lines(), *_notes(student, readers))
        with Progress(environment.console, "pool", len(job.teachers) * len(shards)) as progress:
            build = Build(job, environment, ranks, grader, progress, readers, shards)
            files = {teacher.name: build.answered(teacher, i) for i, teacher in enumerate(job.teachers)}
        if ranks.rank == 0:  # no rank waits for this: choosing may take longer than a collective may
            output = PoolOutput(job, student, environment.trust_remote_code, loaded.questions, shards, files)
            summary = output.write(folder.path, loaded.report)
            say(environment.console, *summary.lines())
            summary.show(environment.console)
            folder.finish(folder.path / "out")
            refresh_report(folder.path, partial(say, environment.console))
    return job.run.folder / "out"


def _check_recorded(job: PoolJob, questions: Sequence[Question]) -> None:
    """Raise DataError for a recorded teacher whom no question has an answer of."""
    found = {answer.teacher for question in questions for answer in question.answers}
    for i, teacher in enumerate(job.teachers):
        if teacher.recorded is not None and teacher.recorded not in found:
            allowed = nearest(teacher.recorded, sorted(found))
            raise DataError(f"teachers.{i}.recorded: no question has an answer of {teacher.recorded!r}{allowed}")


def _readers(job: PoolJob, questions: Sequence[Question], trust_remote_code: bool) -> dict[str, Reader]:
    """Those of all teachers that are models: what one of them cannot read is found before another has answered."""
    readers = {}
    for teacher in job.teachers:
        if teacher.model is not None:
            with about(teacher):
                readers[teacher.name] = Reader.of(job, teacher, questions, trust_remote_code)
    return readers


def _notes(student: PromptTokenizer, readers: Mapping[str, Reader]) -> list[str]:
    """What a person should know of the student's tokens and of the teachers'."""
    of_teachers = [f"teacher {name}: {note}" for name, reader in readers.items() for note in reader.tokenizer.notes]
    return [*(f"student: {note}" for note in student.notes), *of_teachers]


def _open(job: PoolJob, environment: Environment, questions: Sequence[Question], stack: ExitStack) -> RunFolder:
    """The run folder, new or as an earlier build left it, locked until `stack` closes."""
    manifest = build_manifest(
        job="pool",
        seed=job.run.seed,
        plugins=environment.plugins.distributions,
        code=environment.code(),
        data=dict.fromkeys(job.questions),
        teachers=[teacher.name for teacher in job.teachers],
        models=dict.fromkeys(teacher.model.path for teacher in job.teachers if teacher.model is not None),
        questions={"asked": hash_questions(question.uid for question in questions)},
    )
    folder, notes = open_again(job, environment, manifest, stack)
    say(environment.console, *notes)
    return folder


@dataclass(frozen=True, slots=True)
class Build:
    """A build in progress: makes the shards of one teacher after the other."""

    job: PoolJob
    environment: Environment
    ranks: Ranks
    grader: Grader
    progress: Progress
    readers: Mapping[str, Reader]
    shards: list[Shard]

    def answered(self, teacher: PoolTeacher, position: int) -> TeacherShards:
        """Make what is missing of the shards of `teacher`, the `position`-th, and return them. A collective call."""
        with about(teacher):
            files, missing = by_first(self.ranks, lambda: self._opened(teacher))
            before = position * len(self.shards)
            there = len(self.shards) - len(missing)
            if there:
                self.progress.note(f"teacher {teacher.name}: {there} of {len(self.shards)} shards are there already")
                self.progress.step(before + there, {})
            with ExitStack() as stack:
                source: Source | None = None
                for done, shard in enumerate(missing, start=before + there + 1):
                    answers = by_first(self.ranks, partial(_written, files, shard))
                    if answers is None:
                        source = source or self._source(teacher, files, stack)
                        answers = source.answer(shard)
                        by_first(self.ranks, partial(files.write_answers, shard, answers))
                    self._verify(shard, answers, files)
                    self.progress.step(done, {})
        return files

    def _opened(self, teacher: PoolTeacher) -> tuple[TeacherShards, list[Shard]]:
        """The files of `teacher`, and the shards that are missing there."""
        found = recipe(self.job, teacher)
        files = TeacherShards.of(self.job.run.folder / "shards", teacher.name, found, self._reward())
        files.open(found)
        return files, [shard for shard in self.shards if not _complete(files, shard)]

    def _source(self, teacher: PoolTeacher, files: TeacherShards, stack: ExitStack) -> Source:
        source = open_source(self.job, teacher, self.readers.get(teacher.name), self.environment, self.ranks, files)
        stack.callback(source.close)
        return source

    def _verify(self, shard: Shard, answers: list[Answer], files: TeacherShards) -> None:
        """Grade the answers that ended, all ranks together, and write the verdicts."""
        asked = {question.uid: question for question in shard.questions}
        ended = [answer for answer in answers if answer.finish_reason == ENDED]
        requests = [GradeRequest.of(asked[answer.uid], answer.text) for answer in ended]
        mine: list[Grade] = []
        by_each(self.ranks, lambda: mine.extend(self.grader.grade(self.ranks.shard(requests), ANSWER_TRIES)))
        grades = self.ranks.gather(mine, len(requests))
        verdicts = [
            Verdict(answer.uid, answer.sample, grade.correct, grade.status, grade.detail)
            for answer, grade in zip(ended, grades, strict=True)
        ]
        by_first(self.ranks, partial(files.write_verdicts, shard, verdicts))

    def _reward(self) -> dict[str, Any]:
        options = build_options(self.job.reward)
        return {name: value for name, value in options.items() if name not in HOW_IT_IS_GRADED}


def _written(files: TeacherShards, shard: Shard) -> list[Answer] | None:
    """The answers of a shard that only lacks its verdicts; None where they are missing too."""
    return files.read_answers(shard) if files.answers_file(shard).exists() else None


def _complete(files: TeacherShards, shard: Shard) -> bool:
    return files.answers_file(shard).exists() and files.verdicts_file(shard).exists()
