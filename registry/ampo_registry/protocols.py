"""What a component gets (contexts) and what the core calls on it (protocols)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, overload, runtime_checkable

from ampo_registry.errors import PluginError
from ampo_registry.judges import Judge
from ampo_registry.step import Schedule, SelectionContext, TriggerContext
from ampo_registry.step_log import StepLog
from ampo_registry.types import (
    Grade,
    GradeRequest,
    Question,
    Rollout,
    RolloutGroup,
    RolloutRequest,
    SamplingOptions,
    Selection,
    SelectionRequest,
    TaskData,
    TeacherAnswer,
    Totals,
)

if TYPE_CHECKING:
    import torch

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


class Buildable(Protocol[T_co]):
    """A spec, as far as building goes."""

    kind: ClassVar[str]

    def build(self, context: BuildContext) -> T_co: ...


@dataclass(frozen=True, slots=True)
class Constant:
    """A number in the place of a schedule."""

    number: float

    def value(self, step: int, steps: int, metrics: Mapping[str, float]) -> float:
        """Always `number`."""
        return self.number


def _as_it_is(spec: Buildable[Any], context: BuildContext) -> Any:
    return spec.build(context)


def _not_in_a_run(path: str, dtype: str | None) -> Judge:
    raise PluginError(f"the model {path} can be loaded in a train job only")


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What `spec.build(context)` may use.

    `run_dir` is None outside a run; `model_path` and `tokenizer` (a transformers tokenizer) are set for
    rollouts and tasks; `dtype` (float32 or bfloat16) is the type that weights are wanted in, None leaves it to the
    component; `config` is the resolved config in JSON types; `trust_remote_code` stays off unless the
    command line says otherwise. `resume_step` is set for trackers: None in a new run, the last step that stands in a
    run that goes on, 0 in one that starts over in its old folder. `load_frozen(path, dtype)` loads a model that is not
    trained, as the learner loads its own (dtype None: the policy's), to be asked for log-probs. `longest` are the most
    tokens that a judge is asked about at once, None where that is not known. `place` names the component that is being
    built, and `built` holds all components by place: those with memory are checkpointed. `make` builds a spec; a run's
    looks at what its components answer.
    """

    seed: int = 0
    run_name: str = ""
    run_dir: Path | None = None
    model_path: str | None = None
    tokenizer: Any = None
    rank: int = 0
    world_size: int = 1
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    trust_remote_code: bool = False
    dtype: str | None = None
    resume_step: int | None = None
    load_frozen: Callable[[str, str | None], Judge] = _not_in_a_run
    longest: int | None = None
    place: str = ""
    built: dict[str, object] = field(default_factory=dict[str, object], compare=False)
    make: Callable[[Any, BuildContext], Any] = field(default=_as_it_is, compare=False, repr=False)

    @overload
    def build(self, spec: Buildable[T], name: str = "") -> T: ...

    @overload
    def build(self, spec: float, name: str = "") -> Schedule: ...

    def build(self, spec: Buildable[Any] | float, name: str = "") -> Any:
        """The component of a spec that another one holds, or the schedule of a `Scheduled` option.

        `name` tells it from others of its kind within the same component; without one that is its kind.
        """
        if isinstance(spec, int | float):
            return Constant(float(spec))
        place = f"{self.place}.{name or spec.kind}" if self.place else name or spec.kind
        if place in self.built:
            raise PluginError(f"{place} is built twice: give context.build a name for each")
        self.built[place] = None
        component = self.make(spec, replace(self, place=place))
        self.built[place] = component
        return component


@dataclass(frozen=True, slots=True)
class RunContext:
    """What observers get: which run, where its files are, and its resolved config in JSON types.

    `resume_step` is None in a new run, the last step that stands in a run that goes on, 0 in one that starts over.
    `step_log` is where `log` writes.
    """

    name: str
    folder: Path
    job: str
    seed: int
    config: Mapping[str, Any]
    resume_step: int | None = None
    step_log: StepLog = field(default_factory=StepLog, repr=False, compare=False)

    def log(self, name: str, value: float) -> None:
        """In `ampo_step_finished`: a metric of that step under a name of your own, such as `mine/share`; several values
        of a name are averaged. Raises PluginError in other hooks, for a name that is the core's or has come already,
        and for a value that is no finite number."""
        self.step_log.add(name, value)


class Selector(Protocol):
    """Chooses teacher answers for all groups of a step that need guidance."""

    def select(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[Selection]]: ...


class Trigger(Protocol):
    """Says which groups need guidance."""

    def fires(self, group: RolloutGroup, context: TriggerContext) -> bool: ...


class Aggregator(Protocol):
    """Gives the sequences of a scope the weights of their tokens: [sequences] float64."""

    def token_weights(self, lengths: torch.Tensor, totals: Totals) -> torch.Tensor: ...


LARGEST_LOG_RATIO = 20.0
"""The largest log-ratio that a shaping gets: the core cuts off what is above."""


class Shaping(Protocol):
    """Shapes the importance ratios of teacher tokens, given by their logarithms: [tokens] -> [tokens]."""

    def shape(self, log_ratio: torch.Tensor) -> torch.Tensor: ...


class TeacherPool(Protocol):
    """Gives the teachers' answers to a question."""

    def answers(self, question: Question) -> Sequence[TeacherAnswer]: ...

    def check_questions(self, questions: Sequence[Question]) -> None: ...


class LateTeacherPool(Protocol):
    """Gives teachers' answers in a step, to a question that needs them and whose rollouts it sees."""

    def answers(self, question: Question, group: RolloutGroup) -> Sequence[TeacherAnswer]: ...

    def check_questions(self, questions: Sequence[Question]) -> None: ...


class Reward(Protocol):
    """Grades responses, in worker processes."""

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]: ...

    def check_truth(self, answer: str) -> str | None: ...


class Advantage(Protocol):
    """Makes advantages of the rewards of a group: [n] -> [n] float64, n from 1 to G."""

    def advantages(self, rewards: torch.Tensor, correct: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor: ...


class RolloutEngine(Protocol):
    """Samples from its own copy of the weights."""

    def generate(self, requests: Sequence[RolloutRequest], options: SamplingOptions) -> list[list[Rollout]]:
        """One list for each request, one rollout for each of its seeds, both in order. A seed decides its sample,
        whatever else is in the batch."""
        ...

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]], policy_version: int) -> None:
        """Take over all parameters (Hugging Face names) and stamp later rollouts with `policy_version`."""
        ...

    def sleep(self) -> None:
        """Give accelerator memory back to the learner until `wake`."""
        ...

    def wake(self) -> None:
        """Be ready to sample again."""
        ...

    def close(self) -> None:
        """Free everything; the engine is not used afterwards."""
        ...


class Tracker(Protocol):
    """An open tracker, on rank 0."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the metrics of a step; step 0 is the evaluation before training."""
        ...

    def close(self) -> None:
        """Write what is pending and close."""
        ...


class Task(Protocol):
    """Makes the data of a small world, and a start model if it has one."""

    def make(self, seed: int) -> TaskData: ...

    def write_start_model(self, folder: Path, seed: int) -> bool: ...


@runtime_checkable
class Stateful(Protocol):
    """A component with memory: its state as JSON.

    Every checkpoint holds it, on each rank its own; a run that goes on puts it back before its first step. A
    component without these two methods must answer the same whatever it was asked before.
    """

    def state_dict(self) -> dict[str, JsonValue]: ...

    def load_state_dict(self, state: dict[str, JsonValue]) -> None: ...
