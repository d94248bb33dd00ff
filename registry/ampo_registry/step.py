"""What every hook of a step may use: where the run stands, the scorer, a second generation, metrics of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, cast

from ampo_registry.errors import PluginError
from ampo_registry.judges import StepJudge
from ampo_registry.samples import Sample
from ampo_registry.tokens import LogProbs, TokenIds
from ampo_registry.types import Grade, Guidance, Message, Question, Rollout, SamplingOptions


class Scorer(Protocol):
    """The only way from a selector to the model. A collective call: every rank makes it with the same items."""

    def answer_logprobs(self, items: Sequence[tuple[Question, Guidance]]) -> list[list[float]]:
        """Log-probs (nats, temperature 1, current policy) of the tokens of the question's scored answer, else of its
        ground truth, put in place of the teacher's answer, one list for each item; empty if the text has not exactly
        one `<answer>`, or the question no answer to score."""
        ...


class Schedule(Protocol):
    """A number that changes over the run."""

    def value(self, step: int, steps: int, metrics: Mapping[str, float]) -> float:
        """The number at `step` (from 1) of `steps`; `metrics` are those of the step before, without times. Asked
        again for the same step it gives the same."""
        ...


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A prompt to go on from: `samples` responses, each of at most `max_response_tokens` (None: the run's limit, or as
    many as there is room for).

    `position` is the place in the batch of the group that it is for, from which the seeds are made.
    """

    prompt_token_ids: TokenIds
    position: int
    samples: int = 1
    max_response_tokens: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_token_ids", TokenIds.of(self.prompt_token_ids))

    def limit(self, options: SamplingOptions, max_tokens: int) -> int:
        """The most tokens of a response, prompt and response being at most `max_tokens` together.

        Raises PluginError for a request without prompt, samples or room, or with a limit that is more than there is.
        """
        prompt, given = len(self.prompt_token_ids), self.max_response_tokens
        room = min(options.max_response_tokens, max_tokens - prompt)
        limit = room if given is None else given
        if prompt and self.samples > 0 and 0 < limit <= room:
            return limit
        raise PluginError(
            f"generate: the request at position {self.position} asks for {self.samples} samples of at most {limit} "
            f"tokens after a prompt of {prompt}; it needs one of each, and has room for {max(room, 0)}: at most "
            f"{options.max_response_tokens} in a response (rollout.max_response_tokens), {max_tokens} with its prompt"
        )


class StepServices(Protocol):
    """What the core lends to a step. `StepContext` has each of these as a method of its own."""

    @property
    def options(self) -> SamplingOptions: ...

    @property
    def max_tokens(self) -> int: ...

    def generate(
        self, requests: Sequence[GenerationRequest], options: SamplingOptions | None
    ) -> list[list[Rollout]]: ...

    def grade(self, answers: Sequence[tuple[Question, Rollout]]) -> list[Grade]: ...

    def prompt(self, messages: Sequence[Message]) -> TokenIds: ...

    def text(self, token_ids: Sequence[int]) -> str: ...

    def log(self, name: str, value: float) -> None: ...

    def judge(self, name: str) -> StepJudge: ...

    def old_logprobs(self, samples: Sequence[Sample]) -> list[LogProbs]: ...


CORE = ("reward/", "guidance/", "response/", "groups/", "policy/", "rollout/", "verifier/", "tokens/", "time/", "eval/")
"""What metrics of the core begin with."""


def checked_metric(name: str, value: float, where: str = "log") -> float:
    """`value`, if a plugin may log it as `name`. Raises PluginError, which begins with `where`, for a name that is the
    core's or that holds no "/", and for a value that is no finite number."""
    if not isinstance(cast(object, name), str):
        raise PluginError(f"{where}: the name of a metric must be a text such as mine/share; found {name!r:.80}")
    if "/" not in name or name.startswith(CORE):
        own = f"mine/{name.rpartition('/')[2]}"
        raise PluginError(f"{where}: the metric {name!r} needs a name of its own, such as {own}; not {', '.join(CORE)}")
    try:
        number = math.nan if isinstance(cast(object, value), str | bytes) else float(value)
    except Exception:  # a plugin's object may raise anything
        number = math.nan
    if not math.isfinite(number):
        raise PluginError(f"{where}: the metric {name!r} is {value!r:.80}, expected a finite number")
    return number


class _Missing:
    """Stands where a context was built by hand without what a run gives it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise PluginError(
            f"this StepContext has no {name}: a run's has; in a test use ampo_registry.testing.example_step"
        )


_NO_SCORER, _NO_SERVICES = cast(Scorer, _Missing()), cast(StepServices, _Missing())


@dataclass(frozen=True, slots=True)
class StepContext:
    """Where the run stands: `step` (from 1) of `steps`, and the `metrics` of the step before, without times.

    `generate` and `grade` are collective calls, as the scorer's: every rank makes them with equal arguments, and gets
    equal results.
    """

    step: int
    steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    scorer: Scorer = _NO_SCORER
    services: StepServices = _NO_SERVICES

    @property
    def options(self) -> SamplingOptions:
        """How the run samples: temperature, limit of a response, stop tokens."""
        return self.services.options

    @property
    def max_tokens(self) -> int:
        """The longest sample, prompt and response together, that can be drawn and trained on."""
        return self.services.max_tokens

    def generate(
        self, requests: Sequence[GenerationRequest], options: SamplingOptions | None = None
    ) -> list[list[Rollout]]:
        """Sample with the current policy: a list for each request, its samples in order.

        Without `options` as the run does. A seed is a function of (run seed, step, position, round), where a round is
        one call of this method in a step; samples of one position are numbered through. Log-probs at another
        temperature or top_p than the run's are not the trainer's: such a rollout's are NaN, and a sample of it has
        none. Raises PluginError for a request without room.
        """
        return self.services.generate(requests, options)

    def grade(self, answers: Sequence[tuple[Question, Rollout]]) -> list[Grade]:
        """Verify each response to its question, penalties included. A response that was put together of several
        parts is a `Rollout` of all its tokens and its whole text."""
        return self.services.grade(answers)

    def prompt(self, messages: Sequence[Message]) -> TokenIds:
        """`messages` in the model's chat template, up to where a response begins."""
        return self.services.prompt(messages)

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of response tokens, as a rollout's: without special tokens and the stop token."""
        return self.services.text(token_ids)

    def log(self, name: str, value: float) -> None:
        """A metric of the step under a name of your own, such as `mine/share`; several values of a name are averaged.

        Raises PluginError for a name that is the core's and for a value that is no finite number.
        """
        self.services.log(name, value)

    def judge(self, name: str) -> StepJudge:
        """The judge of that name: `start`, `policy`, or one of the config's `judges`, which the spec of whoever asks
        must name in its own `judges`. Raises PluginError for one that is not there."""
        return self.services.judge(name)

    def old_logprobs(self, samples: Sequence[Sample]) -> list[LogProbs]:
        """log π_old of each token of each sample's response, given the prompt that it is trained with, in nats and at
        the rollout's temperature. A collective call; the update takes over what was computed here."""
        return self.services.old_logprobs(samples)

    def value(self, schedule: Schedule) -> float:
        """What `schedule` comes to in this step. Raises PluginError for what is no number."""
        found = cast(object, schedule.value(self.step, self.steps, self.metrics))
        if isinstance(found, bool) or not isinstance(found, int | float):
            name = type(schedule).__name__
            raise PluginError(f"step {self.step}: schedule {name}.value gave {found!r}; it must give a number")
        return found


SelectionContext = StepContext
"""What a selector gets."""
TriggerContext = StepContext
"""What a trigger gets."""
