"""Spec bases: one for each kind of component. A plugin subclasses one and names itself in `type`.

A spec is a frozen pydantic model: its fields are the component's YAML options. By default the spec *is* the
component (`build` returns `self`); a component that needs a model, a process or a file overrides `build`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from ampo_registry.errors import PluginError
from ampo_registry.protocols import (
    Aggregator,
    BuildContext,
    LateTeacherPool,
    Reward,
    RolloutEngine,
    Shaping,
    Task,
    TeacherPool,
    Tracker,
    Trigger,
)
from ampo_registry.step import TriggerContext
from ampo_registry.types import Grade, GradeRequest, Question, RolloutGroup, TaskData, TeacherAnswer, Totals

if TYPE_CHECKING:
    import torch


class ComponentSpec(BaseModel):
    """Base of all specs. Subclass the base of a kind, not this one.

    `kind` is the YAML name of the kind; `behaviour` names the methods that a subclass must bring, unless it
    overrides `build`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str]
    behaviour: ClassVar[tuple[str, ...]]
    logs: ClassVar[tuple[str, ...]] = ()
    """Metrics that it logs in every run, so that `checkpoint.best` may name them; of a loss what it measures, by the
    names that `view.measure` gets."""

    @property
    def judges(self) -> frozenset[str]:
        """The judges that it asks through the step's context, by name; `EVERY_JUDGE`: any that is declared. A loss
        names them in `needs` instead."""
        return frozenset()

    def unavailable(self) -> str | None:
        """Why this component cannot run here (a missing package, a later release), or None. Must be cheap."""
        return None

    def warnings(self) -> Sequence[tuple[str, str]]:
        """(option, what about it may not do what was meant); said before a run starts."""
        return ()

    def _missing(self, method: str) -> NoReturn:
        raise PluginError(f"{self.kind} {type(self).__name__} defines neither {method}() nor build()")


class TriggerSpec(ComponentSpec):
    """Decides whether a group needs guidance."""

    kind: ClassVar[str] = "trigger"
    behaviour: ClassVar[tuple[str, ...]] = ("fires",)

    def build(self, context: BuildContext) -> Trigger:
        return self

    def fires(self, group: RolloutGroup, context: TriggerContext) -> bool:
        """True iff `group` should get teacher answers."""
        self._missing("fires")


class AggregatorSpec(ComponentSpec):
    """A rule for the weight of each sequence's tokens in a loss."""

    kind: ClassVar[str] = "aggregator"
    behaviour: ClassVar[tuple[str, ...]] = ("token_weights",)

    def build(self, context: BuildContext) -> Aggregator:
        return self

    def token_weights(self, lengths: torch.Tensor, totals: Totals) -> torch.Tensor:
        """`lengths` [sequences] int64 -> [sequences] float64, the weight of every token of each sequence.

        `totals` are those of the whole scope and source, of which `lengths` may be a part; a sequence of
        length 0 must get a finite weight.
        """
        self._missing("token_weights")

    def depends_on_count(self) -> bool:
        """False iff a token's weight is the same however many sequences and tokens the scope has: a plain sum.

        A mean, the usual case, lets a single sequence become the whole term; configs are warned about that.
        """
        return True


class ShapingSpec(ComponentSpec):
    """Shapes the importance ratio of teacher tokens."""

    kind: ClassVar[str] = "shaping"
    behaviour: ClassVar[tuple[str, ...]] = ("shape",)

    def build(self, context: BuildContext) -> Shaping:
        return self

    def shape(self, log_ratio: torch.Tensor) -> torch.Tensor:
        """`log_ratio` [tokens] = log(π_θ/π_φ) -> [tokens], differentiable; value and gradient must be finite
        from -1e4 up to 20: above 0 where π_φ is recorded and the teacher found its token less likely."""
        self._missing("shape")


class TeacherPoolSpec(ComponentSpec):
    """Gives the teachers' answers for a question."""

    kind: ClassVar[str] = "teacher_pool"
    behaviour: ClassVar[tuple[str, ...]] = ("answers",)

    def build(self, context: BuildContext) -> TeacherPool | LateTeacherPool:
        return self

    def answers(self, question: Question) -> Sequence[TeacherAnswer]:
        """All answers for `question`, best first; may be empty. Same question, same answers."""
        self._missing("answers")

    def check_questions(self, questions: Sequence[Question]) -> None:
        """Called once with all training questions, before anything starts. Raise DataError if this pool cannot
        serve them."""


class NgramPenalty(BaseModel):
    """`value` is added to a non-zero reward if some `ngram` words in a row occur `limit` times or more."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ngram: PositiveInt = 10
    limit: PositiveInt = 10
    value: float = -1.0


class OverlongPenalty(BaseModel):
    """Grows linearly from 0 to `value` over the last `buffer` tokens before max_response_tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    buffer: PositiveInt
    value: float = -1.0


class RewardSpec(ComponentSpec):
    """Verifies a response. Runs in worker processes: it must be picklable and keep no state.

    The reward is `(1 - format_weight)·correct + format_weight·formatted` (Eq. 8). The core owns the workers, the
    deadline of `timeout_s` CPU seconds an item (by the clock ten times that), and the two penalties; it stops the
    run when the share of timeouts and errors, over at least the last 1,000 responses, exceeds `max_error_rate`.
    """

    kind: ClassVar[str] = "reward"
    behaviour: ClassVar[tuple[str, ...]] = ("grade", "check_truth")
    truth_is_answer: ClassVar[bool] = True
    """Whether a ground truth is what a right response has in its answer tags. False where it is a constraint, say:
    then only a question's `scored_answer` can be scored by comprehension (Eq. 5)."""

    format_weight: float = Field(default=0.1, ge=0.0, le=1.0, description="λ: share of the format in the reward")
    timeout_s: PositiveFloat = Field(default=5.0, description="CPU seconds for a verdict; by the clock ten times that")
    workers: PositiveInt | Literal["auto"] = Field(default="auto", description="processes; auto: by the CPU cores")
    max_error_rate: float = Field(
        default=0.01,
        ge=0.0,
        le=1.0,
        description="share of timeouts and errors, over at least the last 1,000 responses, above which the run stops",
    )
    repetition_penalty: NgramPenalty | None = Field(default=None, description="for a repeated n-gram of words")
    overlong_penalty: OverlongPenalty | None = Field(default=None, description="linear, near the length limit")

    def build(self, context: BuildContext) -> Reward:
        return self

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        """One grade for each request, in order."""
        self._missing("grade")

    def check_truth(self, answer: str) -> str | None:
        """Why no response could ever be verified against the ground truth `answer`, or None if it is fine."""
        self._missing("check_truth")

    def note_truth(self, answer: str) -> str | None:
        """Why a verdict against a ground truth that `check_truth` accepts may be unreliable, or None. Its questions
        are kept and listed with the reason."""
        return None

    def check_row(self, row: Mapping[str, object]) -> str | None:
        """Why no response to the question of this row of a data file could be judged, or None. Asked of the first rows
        before a run and by `--check`, in the main process: nothing that a row says may be run here."""
        return None

    def canaries(self) -> Sequence[tuple[GradeRequest, bool]]:
        """Known responses and whether they are correct. Every worker grades them when it starts, outside any
        deadline; the core refuses to run with a verifier that gets one wrong."""
        return ()

    def earns(self, correct: bool) -> tuple[float, float] | None:
        """The least and the most that a response which is correct, or wrong, can earn before penalties; None where
        that is not known. τ (`guidance.threshold`) must lie above all that a wrong one earns, and no higher than what
        each right one does."""
        return (1.0 - self.format_weight, 1.0) if correct else (0.0, self.format_weight)

    def formatted(self, text: str) -> bool:
        """True iff `<answer>` and `</answer>` each occur exactly once, in that order."""
        return (
            text.count("<answer>") == 1
            and text.count("</answer>") == 1
            and text.index("<answer>") < text.index("</answer>")
        )

    def combine(self, correct: bool, formatted: bool) -> Grade:
        """The grade of a response that was verified (Eq. 8)."""
        reward = (1.0 - self.format_weight) * correct + self.format_weight * formatted
        return Grade(reward=reward, correct=correct, formatted=formatted)


class RolloutSpec(ComponentSpec):
    """Samples responses. `build` returns the engine, which owns its copy of the weights."""

    kind: ClassVar[str] = "rollout"
    behaviour: ClassVar[tuple[str, ...]] = ("build",)

    group_size: PositiveInt = Field(default=8, description="G: responses to each question")
    temperature: PositiveFloat = Field(default=1.0, description="of sampling in training")
    max_response_tokens: PositiveInt = Field(default=8192, description="longest response, stop token included")
    ahead: Literal[0, 1] = Field(
        default=0, description="1 = sample the next batch while the learner updates, one policy version old"
    )
    logprob_gap_limit: PositiveFloat | None = Field(
        default=None, description="stop when sampler and learner differ by more nats a token on average"
    )

    def unfit(self, ranks: int) -> str | None:
        """Why it cannot run on so many ranks, or None. Must be cheap."""
        return None

    def room(self) -> tuple[str, int] | None:
        """The most tokens that a prompt and its response may have together, behind the option that says so; None: as
        many as the model takes."""
        return None

    def build(self, context: BuildContext) -> RolloutEngine:
        self._missing("build")


class TrackerSpec(ComponentSpec):
    """Sends metrics somewhere. `build` returns the open tracker."""

    kind: ClassVar[str] = "tracker"
    behaviour: ClassVar[tuple[str, ...]] = ("build",)

    def build(self, context: BuildContext) -> Tracker:
        self._missing("build")


class TaskSpec(ComponentSpec):
    """Makes a small world: questions, teacher answers, SFT conversations, a start model."""

    kind: ClassVar[str] = "task"
    behaviour: ClassVar[tuple[str, ...]] = ("make",)

    def build(self, context: BuildContext) -> Task:
        return self

    def make(self, seed: int) -> TaskData:
        """All data of the task; the same seed gives the same data."""
        self._missing("make")

    def write_start_model(self, folder: Path, seed: int) -> bool:
        """Write a Hugging Face model with tokenizer and chat template into `folder`; False if the task has none."""
        return False


def component_name(spec: type[ComponentSpec]) -> str:
    """The YAML name of a spec class: the default of its `type` field.

    Raises PluginError if `type` is missing or is not a Literal with a default.
    """
    field = spec.model_fields.get("type")
    if field is None or not isinstance(field.default, str) or not field.default:
        raise PluginError(f'{spec.__name__} has no name: add a line like  type: Literal["my_name"] = "my_name"')
    return field.default


def build_options(spec: ComponentSpec) -> Mapping[str, object]:
    """The options of a spec in JSON types, `type` first: what stands in YAML for it."""
    dumped = spec.model_dump(mode="json")
    return {"type": dumped.pop("type"), **dumped}
