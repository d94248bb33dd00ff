"""Teacher answers as candidates: tokenised, graded, and what cannot be used left out and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

import numpy
from ampo_registry.errors import AmpoError, DataError, PluginError, RunError
from ampo_registry.faults import describe
from ampo_registry.protocols import JsonValue, LateTeacherPool, TeacherPool
from ampo_registry.tokens import LogProbs, TokenIds
from ampo_registry.types import Grade, GradeRequest, Guidance, Question, RolloutGroup, TeacherAnswer

from ampo_core.data.questions import Watch
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.data.turns import control_notes
from ampo_core.distributed.ranks import Ranks
from ampo_core.grading.grader import ANSWER_TRIES, Grader

WATCHED_EVERY = 256
LeftOut = Literal["incorrect", "overlong", "ungraded"]
"""Why a teacher answer is no candidate."""


@dataclass(slots=True)
class TeacherLibrary:
    """The pool's answers as graded candidates. Each is tokenised and graded when first needed, and where the verifier
    gave no verdict each time that its question comes again: a failure says nothing of the answer.

    `recorded` is the key of a loss that needs the log-probs that the data recorded; empty: none does. `late` are the
    teachers of a pool that is asked in the step, each time anew, `at_once` questions at a time; None: it is not."""

    pool: TeacherPool | LateTeacherPool
    tokenizer: PromptTokenizer
    grader: Grader
    ranks: Ranks
    max_response_tokens: int
    recorded: str = ""
    late: tuple[str, ...] | None = None
    at_once: int = 1
    counts: Counter[LeftOut] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    """What `check` found that a person should know."""
    _known: dict[str, list[Guidance | LeftOut | TeacherAnswer]] = field(default_factory=dict)
    """uid -> what became of each of its answers, in the pool's order; one without a verdict is still an answer."""
    _teachers: dict[str, list[str]] = field(default_factory=dict)
    """uid -> whose answer each of `_known` is."""
    _counted: set[str] = field(default_factory=set)

    def candidates(self, questions: Sequence[Question]) -> list[tuple[Guidance, ...]]:
        """The usable teacher answers of each question, in the pool's order; all new ones are graded in one call.

        Left out and counted: answers over the response limit, and answers that do not verify.
        """
        pool, asked = cast(TeacherPool, self.pool), {question.uid: question for question in questions}
        for uid, question in asked.items():
            if uid not in self._known:
                answers = list(pool.answers(question))
                self._known[uid], self._teachers[uid] = [*answers], [answer.teacher for answer in answers]
        open_answers = [
            (question, index, answer)
            for uid, question in asked.items()
            for index, answer in enumerate(self._known[uid])
            if isinstance(answer, TeacherAnswer)
        ]
        graded = self._graded([(question, answer) for question, _, answer in open_answers])
        for (question, index, _), found in zip(open_answers, graded, strict=True):
            if found != "ungraded":
                self._known[question.uid][index] = found
            if not isinstance(found, Guidance) and question.uid not in self._counted:
                self.counts[found] += 1
        self._counted.update(asked)
        return [tuple(found for found in self._known[q.uid] if isinstance(found, Guidance)) for q in questions]

    def left_out(self, question: Question) -> list[tuple[str, str]]:
        """(teacher, why) of each answer to `question` that `candidates` has left out so far."""
        pairs = zip(self._teachers.get(question.uid, ()), self._known.get(question.uid, ()), strict=True)
        return [
            (teacher, "ungraded" if isinstance(found, TeacherAnswer) else found)
            for teacher, found in pairs
            if not isinstance(found, Guidance)
        ]

    def late_candidates(self, groups: Sequence[RolloutGroup], step: int) -> list[tuple[Guidance, ...]]:
        """The usable answers of a late pool to the question of each group, in its order. Each question is asked on one
        rank, and all answers are graded in one call; none is kept for another step.

        Raises RunError on every rank if the pool fails on one.
        """
        answered = self.ranks.map(self._ask_late, groups)
        for answers in answered:
            if isinstance(answers, str):
                raise RunError(f"step {step}: {answers}")
        given = [(group.question, a) for group, answers in zip(groups, answered, strict=True) for a in answers]
        graded = iter(self._graded(cast("list[tuple[Question, TeacherAnswer]]", given)))
        usable = []
        for answers in answered:
            found = [next(graded) for _ in answers]
            self.counts.update(reason for reason in found if not isinstance(reason, Guidance))
            usable.append(tuple(guidance for guidance in found if isinstance(guidance, Guidance)))
        return usable

    def _ask_late(self, groups: Sequence[RolloutGroup]) -> list[list[TeacherAnswer] | str]:
        """The answers to each group's question; or for each of them what went wrong, for all ranks must hear of it."""
        threads = ThreadPoolExecutor(self.at_once)
        try:
            return list((threads.map if self.at_once > 1 else map)(self._answers_late, groups))
        except Exception as error:
            return [str(error) if isinstance(error, AmpoError) else describe(error)] * len(groups)
        finally:
            threads.shutdown(cancel_futures=True)

    def _answers_late(self, group: RolloutGroup) -> list[TeacherAnswer]:
        answers = list(cast(LateTeacherPool, self.pool).answers(group.question, group))
        for answer in answers:
            if self.late and answer.teacher not in self.late:
                found = f"question {group.question.uid[:12]} has an answer of {answer.teacher!r}"
                raise PluginError(f"guidance.teacher_pool: {found}; its `names` are {', '.join(self.late)}")
        return answers

    def _graded(self, answers: Sequence[tuple[Question, TeacherAnswer]]) -> list[Guidance | LeftOut]:
        """What becomes of each answer, graded in one call."""
        requests = [GradeRequest.of(question, answer.text) for question, answer in answers]
        grades = self.ranks.map(partial(self.grader.grade, tries=ANSWER_TRIES), requests)
        return [self._guidance(*pair, grade) for pair, grade in zip(answers, grades, strict=True)]

    def check(
        self,
        questions: Sequence[Question],
        place: Callable[[int], str] = "question {}".format,
        watch: Watch | None = None,
    ) -> tuple[str, ...]:
        """The names of all teachers that answer any of `questions`, sorted; those that a late pool says, which is not
        asked. `watch` is told how many are done.

        Raises DataError if none does, or if recorded log-probs are asked for and an answer's do not fit its tokens:
        `place` gives file and row of the i-th question.
        """
        self.pool.check_questions(questions)
        if self.late is not None:
            return tuple(sorted(self.late))
        pool = cast(TeacherPool, self.pool)
        teachers: set[str] = set()
        controls: list[tuple[str, ...]] = []
        distinct = {question.uid: question for question in questions}
        for done, question in enumerate(distinct.values(), start=1):
            if watch is not None and (done == len(distinct) or done % WATCHED_EVERY == 0):
                watch("the teachers' answers", done, len(distinct))
            for answer in pool.answers(question):
                teachers.add(answer.teacher)
                controls.append(self.tokenizer.controls_in(answer.text))
                if self.recorded:
                    length = len(self.tokenizer.answer_ids(answer.text, question.prompt_token_ids))
                    if (fault := _unfit_logprobs(answer, length, self.recorded)) is not None:
                        raise DataError(f"{place(_row_of(answer, question, questions))}: {fault}")
        if not teachers:
            raise DataError(
                f"guidance: none of the {len(questions)} training questions has a teacher answer (target_lst or "
                "target); set guidance: null for GRPO"
            )
        self.notes += [f"guidance: {note}" for note in control_notes(controls)]
        return tuple(sorted(teachers))

    def take_counts(self) -> Counter[LeftOut]:
        """Answers left out since the last call of this method, each counted once."""
        counts, self.counts = self.counts, Counter()
        return counts

    def state_dict(self) -> dict[str, JsonValue]:
        """The questions whose answers were counted, so that a run that goes on does not count them again."""
        return {"counted": list[JsonValue](sorted(self._counted))}

    def load_state_dict(self, state: dict[str, JsonValue]) -> None:
        """Take over what `state_dict` gave."""
        counted = state["counted"]
        assert isinstance(counted, list)
        self._counted = {str(uid) for uid in counted}

    def _guidance(self, question: Question, answer: TeacherAnswer, grade: Grade) -> Guidance | LeftOut:
        """The answer as a candidate, or why it is none."""
        text = self.tokenizer.answer_text(answer.text, question.prompt_token_ids)
        token_ids = TokenIds(self.tokenizer.answer_ids(text, question.prompt_token_ids))
        if len(token_ids) > self.max_response_tokens:
            return "overlong"
        if grade.status != "ok":
            return "ungraded"
        if not grade.correct:
            return "incorrect"
        logprobs = answer.logprobs
        if self.recorded:
            logprobs = recorded_logprobs(question, answer, len(token_ids), self.recorded)
        return Guidance(answer.teacher, text, token_ids, grade, logprobs, answer.quality_score)


def recorded_logprobs(question: Question, answer: TeacherAnswer, length: int, key: str) -> LogProbs:
    """Recorded teacher log-probs, one a token; a missing one for the EOS counts as 0 (π_φ = 1).

    Raises DataError if there are none, or not as many as tokens; `key` is that of the loss that needs them.
    """
    if (fault := _unfit_logprobs(answer, length, key)) is not None:
        raise DataError(f"question {question.uid[:12]}: {fault}")
    return ((answer.logprobs or LogProbs()) + [0.0])[:length]


def _unfit_logprobs(answer: TeacherAnswer, length: int, key: str) -> str | None:
    """Why the recorded log-probs of an answer of `length` tokens cannot be those of its tokens, or None."""
    needs = f"{key} needs a log-prob for each of the {length} tokens of {answer.teacher}'s answer"
    logprobs = answer.logprobs
    if logprobs is None or len(logprobs) not in (length - 1, length):
        return f"{needs}; found {'none' if logprobs is None else len(logprobs)}"
    values = numpy.asarray(logprobs.buffer)
    wrong = values[~(numpy.isfinite(values) & (values <= 0.0))]
    return f"{needs}, a finite number of at most 0; found {wrong[0]:g}" if len(wrong) else None


def _row_of(answer: TeacherAnswer, question: Question, questions: Sequence[Question]) -> int:
    """The row that brings `answer`: rows of one question have the answers of all of them."""
    same = [i for i, other in enumerate(questions) if other.uid == question.uid]
    return next((i for i in same if answer.text in _texts(questions[i].extra)), same[0])


def _texts(row: Mapping[str, Any]) -> list[object]:
    found = row.get("target_lst") or row.get("target")
    return [target.get("content") for target in found if isinstance(target, Mapping)] if isinstance(found, list) else []
