"""What a pool build leaves behind: the compositions' files, in the data contract, and the summary."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from ampo_registry.errors import RunError
from ampo_registry.tokens import LogProbs
from ampo_registry.types import Question, TaskQuestion, TeacherAnswer

from ampo_core.config.pool_job import SFT, PoolJob, PoolTeacher
from ampo_core.data.contract_files import conversations_of, write_conversations, write_questions
from ampo_core.data.report import LoadReport
from ampo_core.data.tokens import PromptTokenizer, load_tokenizer
from ampo_core.jobs.pool.choose import Judged, Kept, Tally, choose, composed, judge, quality, united
from ampo_core.jobs.pool.shards import Answer, Shard, TeacherShards
from ampo_core.jobs.pool.summary import CompositionCount, PoolSummary
from ampo_core.run.disk import writing
from ampo_core.run.files import flush_tree, write_json

TRAIN = "train"
"""The one composition of all teachers, where none is named."""


@dataclass(slots=True)
class PoolOutput:
    """Chooses from the complete shards of all teachers and writes. `files` are by teacher."""

    job: PoolJob
    student: PromptTokenizer
    trust_remote_code: bool
    questions: Sequence[Question]
    shards: Sequence[Shard]
    files: Mapping[str, TeacherShards]
    tallies: dict[str, Tally] = field(default_factory=dict)
    kept: dict[str, dict[str, list[TeacherAnswer]]] = field(default_factory=dict)

    def write(self, folder: Path, report: LoadReport) -> PoolSummary:
        """Fill `folder`/out, all at once, and write summary.json. Raises RunError if no question is left."""
        for teacher in self.job.teachers:
            self._choose(teacher)
        uids = [question.uid for question in self.questions]
        compositions = self.job.compositions or {TRAIN: [teacher.name for teacher in self.job.teachers]}
        left = united(self.job.unify, self.kept, uids, compositions)
        counts = {name: self._count(members, uids, left) for name, members in compositions.items()}
        summary = PoolSummary(self.job, report, self.tallies, {n: set(k) for n, k in self.kept.items()}, counts)
        write_json(folder / "summary.json", summary.as_json())
        if not left:
            raise RunError(
                f"unify: {self.job.unify} leaves no question: {'; '.join(summary.lines())}\nThe answers are kept; "
                "change teachers, compositions or unify, and run again with --allow-changes"
            )
        self._write(folder, compositions, left)
        return summary

    def _choose(self, teacher: PoolTeacher) -> None:
        """What stays of `teacher`'s answers, shard by shard."""
        tally, kept = Tally(), dict[str, list[TeacherAnswer]]()
        tokens = _TokenMatch.of(self.job, teacher, self.student, self.trust_remote_code)
        files = self.files[teacher.name]
        for shard in self.shards:
            judged = _judged(files, shard)
            for question in shard.questions:
                answers = judged.get(question.uid, [])
                measure = partial(self._length, question)
                chosen = choose(answers, self.job.keep, measure, self.job.max_tokens, tally)
                if chosen:
                    share = quality(answers)
                    kept[question.uid] = [
                        TeacherAnswer(teacher.name, item.answer.text, tokens.logprobs(item, question, tally), share)
                        for item in chosen
                    ]
        self.tallies[teacher.name], self.kept[teacher.name] = tally, kept

    def _length(self, question: Question, text: str) -> int:
        return len(self.student.answer_ids(text, question.prompt_token_ids))

    def _count(self, members: Sequence[str], uids: Sequence[str], left: Sequence[str]) -> CompositionCount:
        before = composed(self.kept, uids, members)
        after = composed(self.kept, left, members)
        return CompositionCount(
            teachers=tuple(members),
            answered_before_unify=sum(map(bool, before)),
            questions=len(left),
            questions_answered=sum(map(bool, after)),
            answers=sum(map(len, after)),
            answers_removed_by_unify=sum(map(len, before)) - sum(map(len, after)),
            answers_of={m: sum(answer.teacher == m for answer in chain(*after)) for m in members},
        )

    def _write(self, folder: Path, compositions: Mapping[str, Sequence[str]], left: Sequence[str]) -> None:
        out, unfinished = folder / "out", folder / ".out.partial"
        by_uid = {question.uid: question for question in self.questions}
        rows = [_row(by_uid[uid]) for uid in left]
        abilities = [str(by_uid[uid].extra.get("ability") or "") for uid in left]
        with writing(out, unfinished):
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            for name, members in compositions.items():
                answers = composed(self.kept, left, members)
                write_questions(unfinished / f"{name}.parquet", rows, TRAIN, abilities, answers)
                conversations = conversations_of(rows, answers)
                if conversations:
                    sft = SFT if not self.job.compositions else f"{SFT}_{name}"
                    write_conversations(unfinished / f"{sft}.parquet", conversations)
            flush_tree(unfinished)
            if out.exists():
                shutil.rmtree(out)
            unfinished.rename(out)


@dataclass(frozen=True, slots=True)
class _TokenMatch:
    """Fits a teacher's recorded log-probs to the student's tokens. `teacher` is None where none are recorded."""

    student: PromptTokenizer
    teacher: PromptTokenizer | None

    @classmethod
    def of(cls, job: PoolJob, teacher: PoolTeacher, student: PromptTokenizer, trust_remote_code: bool) -> _TokenMatch:
        if not job.record_logprobs or teacher.model is None:
            return cls(student, None)
        return cls(student, load_tokenizer(teacher.model, trust_remote_code))

    def logprobs(self, kept: Kept, question: Question, tally: Tally) -> LogProbs | None:
        """One log-prob a student's token, or None, counted, if the student cuts the text into other tokens.

        The last one, for the end of the sequence, is there only if both end a sequence with the same token.
        """
        if self.teacher is None:
            return None
        found = self._fitting(kept.answer, question)
        tally.logprobs_kept += found is not None
        tally.logprobs_left_out += found is None
        return found

    def _fitting(self, answer: Answer, question: Question) -> LogProbs | None:
        assert self.teacher is not None
        if answer.token_ids is None or answer.logprobs is None:
            return None
        theirs = self.teacher.tokenizer.convert_ids_to_tokens(list(answer.token_ids))
        ids = self.student.answer_ids(answer.text, question.prompt_token_ids)
        ours = self.student.tokenizer.convert_ids_to_tokens(ids)
        if theirs[:-1] != ours[:-1]:
            return None
        return answer.logprobs if theirs[-1] == ours[-1] else answer.logprobs[:-1]


def _judged(files: TeacherShards, shard: Shard) -> dict[str, list[Judged]]:
    try:
        return judge(files.read_answers(shard), files.read_verdicts(shard))
    except ValueError as error:
        text = f"remove {files.verdicts_file(shard)}, and the same command makes it anew"
        raise RunError(f"shard {shard.name} of {files.folder}: {error}; {text}") from error


def _row(question: Question) -> TaskQuestion:
    info = question.extra.get("extra_info")
    info = {**(info if isinstance(info, Mapping) else {}), "uid": question.uid}
    return TaskQuestion(question.messages, question.answer, question.source, info, scored_answer=question.scored_answer)
