"""The data that travels through one training step, in the order of its hops. All of it is frozen.

Question -> Rollout -> Grade -> RolloutGroup -> TeacherAnswer -> Guidance -> Selection.
Token ids and log-probs are `TokenIds` and `LogProbs`, whatever sequence they came as; tensors begin at the advantages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from ampo_registry.errors import PluginError
from ampo_registry.tokens import LogProbs, TokenIds

FinishReason = Literal["stop", "length"]
GradeStatus = Literal["ok", "timeout", "error"]
TEACHER_COLUMNS = ("target_lst", "target")
"""Columns of a row that hold teacher answers: no reward sees them."""


def _compact(owner: object, **fields: type[TokenIds] | type[LogProbs]) -> None:
    """Let each of these fields of a frozen data class be of its type, or None."""
    for name, kind in fields.items():
        value = getattr(owner, name)
        if value is not None and not isinstance(value, kind):
            object.__setattr__(owner, name, kind(value))


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a prompt. `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class TeacherAnswer:
    """A teacher's answer to a question: raw text, optional per-token log-probs of the teacher."""

    teacher: str
    text: str
    logprobs: LogProbs | None = None
    quality_score: float | None = None

    def __post_init__(self) -> None:
        _compact(self, logprobs=LogProbs)


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt with a verifiable answer.

    `answer` is what a response is verified against; `uid` is the hash of (messages, answer); `source` names the
    dataset; `extra` is the raw row; `answers` are the teacher answers that the data brings: those of the row, or of all
    rows of the question where they differ. `scored_answer` is what comprehension (Eq. 5) puts in the place of a
    teacher's answer where that is not `answer`.
    """

    uid: str
    messages: tuple[Message, ...]
    prompt_token_ids: TokenIds
    answer: str
    source: str
    extra: Mapping[str, object] = field(default_factory=dict[str, object], compare=False)
    answers: tuple[TeacherAnswer, ...] = field(default=(), compare=False)
    scored_answer: str | None = None

    def __post_init__(self) -> None:
        _compact(self, prompt_token_ids=TokenIds)


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled response.

    `token_ids` [n] includes the stop token when `finish_reason` is "stop"; "length" means truncated.
    `logprobs` [n] are those of the sampling distribution (temperature applied), in nats; those of a greedy response
    (temperature 0) are at temperature 1.
    `text` is the response without special tokens. `policy_version` counts the weight syncs so far. `prompt_token_ids`
    are what it was written after, where a hook of a step asked for it; None: its question's.
    """

    token_ids: TokenIds
    logprobs: LogProbs
    text: str
    finish_reason: FinishReason
    policy_version: int
    prompt_token_ids: TokenIds | None = None

    def __post_init__(self) -> None:
        _compact(self, token_ids=TokenIds, logprobs=LogProbs, prompt_token_ids=TokenIds)


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """A prompt to sample from: one response for each seed.

    `max_response_tokens` is the limit of this request alone, at least 1 and at most the options'; None: the options'.
    """

    prompt_token_ids: TokenIds
    seeds: tuple[int, ...]
    max_response_tokens: int | None = None

    def __post_init__(self) -> None:
        _compact(self, prompt_token_ids=TokenIds)
        if self.max_response_tokens is not None and self.max_response_tokens < 1:
            raise PluginError(
                f"a rollout request with max_response_tokens = {self.max_response_tokens}; at least 1, or None"
            )


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How to sample. `temperature` 0 is greedy: the most probable token, whatever the seed and `top_p`.

    `max_response_tokens` counts the stop token; `stop_token_ids` end a response.
    """

    temperature: float
    top_p: float
    max_response_tokens: int
    stop_token_ids: tuple[int, ...]

    def limit_of(self, request: RolloutRequest) -> int:
        """The longest response to `request`, in tokens."""
        return min(self.max_response_tokens, request.max_response_tokens or self.max_response_tokens)


@dataclass(frozen=True, slots=True)
class GradeRequest:
    """A response text to be graded against the ground truth `answer` of a question from `source`.

    `extra` is the raw row without teacher answers. A teacher's answer has ended: its `finish_reason` is "stop".
    """

    text: str
    answer: str
    source: str = ""
    uid: str = ""
    messages: tuple[Message, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)
    finish_reason: FinishReason = "stop"

    @classmethod
    def of(cls, question: Question, text: str, finish_reason: FinishReason = "stop") -> GradeRequest:
        """The response `text` to `question`."""
        row = {name: value for name, value in question.extra.items() if name not in TEACHER_COLUMNS}
        return cls(text, question.answer, question.source, question.uid, question.messages, row, finish_reason)


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict. `reward` is the number the objective sees; `status` keeps timeouts and errors apart from
    wrong answers; `detail` says what went wrong. `numbers` are averaged into the metrics of the step, and of an
    evaluation set, under names of the reward's own, such as `mine/length`."""

    reward: float
    correct: bool
    formatted: bool
    status: GradeStatus = "ok"
    detail: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict[str, float], hash=False)


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """The G rollouts of one question with their grades.

    A rollout is *wrong* iff its reward < `threshold`, or if it has no verdict (the verifier timed out or failed): that
    is no evidence of being correct.
    """

    question: Question
    rollouts: tuple[Rollout, ...]
    grades: tuple[Grade, ...]
    threshold: float

    @property
    def wrong(self) -> tuple[int, ...]:
        """Slots that are wrong: the ones guidance may replace."""
        return tuple(i for i, grade in enumerate(self.grades) if self._is_wrong(grade))

    @property
    def correct(self) -> tuple[int, ...]:
        """The other slots."""
        return tuple(i for i, grade in enumerate(self.grades) if not self._is_wrong(grade))

    def _is_wrong(self, grade: Grade) -> bool:
        return grade.reward < self.threshold or grade.status != "ok"


@dataclass(frozen=True, slots=True)
class Guidance:
    """A teacher answer that was tokenised (`token_ids` ends with exactly one EOS), graded and found correct."""

    teacher: str
    text: str
    token_ids: TokenIds
    grade: Grade
    logprobs: LogProbs | None = None
    quality_score: float | None = None

    def __post_init__(self) -> None:
        _compact(self, token_ids=TokenIds, logprobs=LogProbs)


@dataclass(frozen=True, slots=True)
class SelectionRequest:
    """A triggered group: choose at most `k` of `candidates`. `rng` is seeded from (run seed, step, position).

    `grades` are those of `rollouts`, in their order; a run gives them always.
    """

    question: Question
    rollouts: tuple[Rollout, ...]
    candidates: tuple[Guidance, ...]
    k: int
    rng: Random = field(compare=False)
    grades: tuple[Grade, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """A chosen teacher answer and the score that it was chosen by, if the selector has one."""

    guidance: Guidance
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What an aggregator may divide by: tokens and sequences of one scope and source over all ranks."""

    tokens: int
    sequences: int
    max_response_tokens: int


@dataclass(frozen=True, slots=True)
class GroupReport:
    """A question as it was trained on: `sources` holds "policy" or the teacher's name for each response, `segments`
    which term trained how many of its tokens (None: context), `given` how many characters of its text the student went
    on from, `prompts` what each is trained under, and `read` what the student had read when it wrote: mostly the same.
    """

    question: Question
    texts: tuple[str, ...]
    rewards: tuple[float, ...]
    sources: tuple[str, ...]
    scores: tuple[float | None, ...]
    segments: tuple[tuple[tuple[str | None, int], ...], ...] = ()
    given: tuple[int, ...] = ()
    prompts: tuple[TokenIds, ...] = ()
    read: tuple[TokenIds, ...] = ()


@dataclass(frozen=True, slots=True)
class StepReport:
    """What observers and trackers get after a step: metrics by name, and the groups trained on."""

    step: int
    metrics: Mapping[str, float]
    groups: tuple[GroupReport, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskQuestion:
    """A question as a task plugin makes it, with the answers of its scripted or recorded teachers. `scored_answer` as
    in `Question`."""

    messages: tuple[Message, ...]
    answer: str
    source: str
    extra: Mapping[str, object] = field(default_factory=dict[str, object])
    teacher_answers: tuple[TeacherAnswer, ...] = ()
    scored_answer: str | None = None


@dataclass(frozen=True, slots=True)
class TaskData:
    """All a task makes: training questions, held-out sets by name, and SFT conversations (last turn: assistant)."""

    train: tuple[TaskQuestion, ...]
    heldout: Mapping[str, tuple[TaskQuestion, ...]]
    sft: tuple[tuple[Message, ...], ...] = ()
