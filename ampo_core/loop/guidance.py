"""Guidance (Eq. 3 and 4): teacher answers become candidates, and the selected ones replace wrong rollouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from ampo_registry.errors import DataError, PluginError
from ampo_registry.protocols import (
    BuildContext,
    JsonValue,
    SelectionContext,
    Selector,
    TeacherPool,
    Trigger,
    TriggerContext,
)
from ampo_registry.types import (
    Grade,
    GradeRequest,
    Guidance,
    Question,
    RolloutGroup,
    Selection,
    SelectionRequest,
    TeacherAnswer,
)

from ampo_core.config.tree import GuidanceConfig
from ampo_core.data.seeds import derive_seed, request_rng
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import Ranks
from ampo_core.grading.grader import Grader
from ampo_core.loop.groups import AugmentedGroup, Slot, unguided
from ampo_core.loop.scoring import PolicyScorer

LeftOut = Literal["incorrect", "overlong", "ungraded"]
"""Why a teacher answer is no candidate."""


@dataclass(slots=True)
class TeacherLibrary:
    """The pool's answers as graded candidates. Each is tokenised and graded when first needed, and where the verifier
    gave no verdict each time that its question comes again: a failure says nothing of the answer."""

    pool: TeacherPool
    tokenizer: PromptTokenizer
    grader: Grader
    ranks: Ranks
    max_response_tokens: int
    recorded: bool = False
    counts: Counter[LeftOut] = field(default_factory=Counter)
    _known: dict[str, list[Guidance | LeftOut | TeacherAnswer]] = field(default_factory=dict)
    """uid -> what became of each of its answers, in the pool's order; one without a verdict is still an answer."""
    _counted: set[str] = field(default_factory=set)

    def candidates(self, questions: Sequence[Question]) -> list[tuple[Guidance, ...]]:
        """The usable teacher answers of each question, in the pool's order; all new ones are graded in one call.

        Left out and counted: answers over the response limit, and answers that do not verify.
        """
        asked = {question.uid: question for question in questions}
        for uid, question in asked.items():
            if uid not in self._known:
                self._known[uid] = list(self.pool.answers(question))
        open_answers = [
            (question, index, answer)
            for uid, question in asked.items()
            for index, answer in enumerate(self._known[uid])
            if isinstance(answer, TeacherAnswer)
        ]
        requests = [GradeRequest(answer.text, question.answer, question.source) for question, _, answer in open_answers]
        grades = self.ranks.map(self.grader.grade, requests)
        for (question, index, answer), grade in zip(open_answers, grades, strict=True):
            found = self._guidance(question, answer, grade)
            if found != "ungraded":
                self._known[question.uid][index] = found
            if not isinstance(found, Guidance) and question.uid not in self._counted:
                self.counts[found] += 1
        self._counted.update(asked)
        return [tuple(found for found in self._known[q.uid] if isinstance(found, Guidance)) for q in questions]

    def check(self, questions: Sequence[Question]) -> tuple[str, ...]:
        """The names of all teachers that answer any of `questions`, sorted.

        Raises DataError if none does, or if recorded log-probs are asked for and an answer's do not fit its tokens.
        """
        self.pool.check_questions(questions)
        teachers = set()
        for question in questions:
            for answer in self.pool.answers(question):
                teachers.add(answer.teacher)
                if self.recorded:
                    length = len(self.tokenizer.answer_ids(answer.text, question.prompt_token_ids))
                    recorded_logprobs(question, answer, length)
        if not teachers:
            raise DataError(
                f"guidance: none of the {len(questions)} training questions has a teacher answer (target_lst or "
                "target); set guidance: null for GRPO"
            )
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
        token_ids = tuple(self.tokenizer.answer_ids(text, question.prompt_token_ids))
        if len(token_ids) > self.max_response_tokens:
            return "overlong"
        if grade.status != "ok":
            return "ungraded"
        if not grade.correct:
            return "incorrect"
        logprobs = recorded_logprobs(question, answer, len(token_ids)) if self.recorded else answer.logprobs
        return Guidance(answer.teacher, text, token_ids, grade, logprobs, answer.quality_score)


def recorded_logprobs(question: Question, answer: TeacherAnswer, length: int) -> tuple[float, ...]:
    """Recorded teacher log-probs, one a token; a missing one for the EOS counts as 0 (π_φ = 1).

    Raises DataError if there are none, or not as many as tokens.
    """
    logprobs = answer.logprobs
    if logprobs is None or len(logprobs) not in (length - 1, length):
        found = "none" if logprobs is None else str(len(logprobs))
        raise DataError(
            f"off_policy.behaviour: recorded needs a log-prob for each of the {length} tokens of {answer.teacher}'s "
            f"answer to question {question.uid[:12]}; found {found}"
        )
    return (*logprobs, 0.0)[:length]


@dataclass(frozen=True, slots=True)
class Guide:
    """What rescues a failed group: the parts of the block `guidance`, and the run's seed."""

    config: GuidanceConfig
    trigger: Trigger
    library: TeacherLibrary
    selector: Selector
    scorer: PolicyScorer
    seed: int

    @classmethod
    def build(
        cls, config: GuidanceConfig, library: TeacherLibrary, scorer: PolicyScorer, context: BuildContext
    ) -> Guide:
        """The parts, built in `context`."""
        trigger, selector = config.trigger.build(context), config.selector.build(context)
        return cls(config, trigger, library, selector, scorer, context.seed)

    def triggered(self, groups: Sequence[RolloutGroup], step: int) -> list[int]:
        """Indices of the groups that need guidance; a group without a wrong slot has nothing to replace."""
        context = TriggerContext(step)
        return [i for i, group in enumerate(groups) if group.wrong and self.trigger.fires(group, context)]

    def select(
        self,
        groups: Sequence[RolloutGroup],
        candidates: Sequence[tuple[Guidance, ...]],
        positions: Sequence[int],
        step: int,
    ) -> list[list[Selection]]:
        """Selections for each triggered group, in one call of the selector; k = min(k0, N_g, wrong slots).

        `positions` are the groups' places in the batch.
        """
        requests = [
            SelectionRequest(
                question=group.question,
                rollouts=group.rollouts,
                candidates=usable,
                k=min(self.config.replacements, len(usable), len(group.wrong)),
                rng=request_rng(self.seed, step, position),
            )
            for group, usable, position in zip(groups, candidates, positions, strict=True)
        ]
        asked = [request for request in requests if request.k > 0]
        chosen = self.selector.select(asked, SelectionContext(self.scorer, step))
        name = type(self.selector).__name__
        if len(chosen) != len(asked):
            raise PluginError(f"{name}.select answered {len(chosen)} of {len(asked)} requests")
        answers = iter(_checked(request, selected, name) for request, selected in zip(asked, chosen, strict=True))
        return [next(answers) if request.k > 0 else [] for request in requests]

    def replace_wrong(
        self, group: RolloutGroup, selections: Sequence[Selection], position: int, step: int
    ) -> AugmentedGroup:
        """A triggered group with one wrong slot, drawn at random, replaced for each selection; its size stays G
        (Eq. 4)."""
        rng = Random(derive_seed("replacement", self.seed, step, position))
        given = self.config.teacher_reward
        slots = list(unguided(group).slots)
        for index, selection in zip(rng.sample(group.wrong, len(selections)), selections, strict=True):
            guidance = selection.guidance
            reward = guidance.grade.reward if given == "verified" else given
            slots[index] = Slot(guidance.token_ids, guidance.text, reward, guidance.grade.correct, selection=selection)
        return AugmentedGroup(group.question, tuple(slots), triggered=True)

    def take_counts(self) -> dict[str, float]:
        """Metrics of the teacher answers that could not be used since the last call."""
        left_out = self.library.take_counts()
        return {
            "guidance/left_out_incorrect": float(left_out["incorrect"]),
            "guidance/left_out_overlong": float(left_out["overlong"]),
            "guidance/left_out_ungraded": float(left_out["ungraded"]),
            "guidance/unscorable": float(self.scorer.take_unscorable()),
        }


def _checked(request: SelectionRequest, selected: Sequence[Selection], selector: str) -> list[Selection]:
    """`selected`, if it keeps the selector's contract: distinct candidates of the request, at most k of them."""
    chosen = [next((i for i, c in enumerate(request.candidates) if c is s.guidance), -1) for s in selected]
    if len(chosen) > request.k or -1 in chosen or len(set(chosen)) < len(chosen):
        raise PluginError(
            f"{selector}.select must choose at most {request.k} distinct candidates of its request; "
            f"it chose {len(chosen)} (candidates {chosen}, -1 = not a candidate)"
        )
    return list(selected)
