"""Questions of Reasoning Gym: any of its data sets, or several with weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Literal

from ampo_registry import BuildContext, ConfigError, DataError, Message, Task, TaskData, TaskQuestion, TaskSpec
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveFloat, PositiveInt, field_validator

from ampo_plugins.gym import answers, datasets
from ampo_plugins.gym.entries import from_text, to_text

TRIES = 20
"""How many entries are made for each question that is wanted, before there are said to be too few different ones."""
PROMPT = (
    "Think about the problem step by step. Then give your final answer between <answer> and </answer>, without any "
    "explanation inside these tags, in the form that the problem asks for."
)


class GymData(BaseModel):
    """A data set of Reasoning Gym with its options; `weight` is its share of the training questions."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    weight: PositiveFloat = 1.0
    options: dict[str, JsonValue] = Field(default_factory=dict)


class ReasoningGym(TaskSpec):
    """Questions of Reasoning Gym, and for each data set a held-out set of its name; no question occurs twice.

    A row has the whole entry in `extra_info`, by which the reward `reasoning_gym` scores.
    """

    type: Literal["reasoning_gym"] = "reasoning_gym"
    datasets: tuple[GymData, ...] = Field(
        min_length=1, description="a name, or a list of {name, weight, options}: options are the data set's own"
    )
    questions: PositiveInt = Field(default=1000, description="training questions")
    heldout: PositiveInt = Field(default=100, description="held-out questions of each data set")
    system_prompt: str | None = Field(default=PROMPT, description="of every question; null = none")

    @field_validator("datasets", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if isinstance(value, str):
            return ({"name": value},)
        return tuple(value) if isinstance(value, list) else value  # JSON has no tuples, and is read strictly

    @field_validator("datasets")
    @classmethod
    def _known(cls, value: tuple[GymData, ...]) -> tuple[GymData, ...]:
        names = [part.name for part in value]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{repeated[0]} stands there twice")
        for part in value if datasets.unavailable() is None else ():
            if fault := datasets.fault_of(part.name, part.options):
                raise ValueError(fault)
        return value

    def unavailable(self) -> str | None:
        """A reason if the package is missing, else None."""
        return datasets.unavailable()

    def warnings(self) -> Sequence[tuple[str, str]]:
        """Data sets that a seed does not make again."""
        text = "its questions differ from process to process unless PYTHONHASHSEED is set; keep the files"
        return [("datasets", f"{part.name}: {text}") for part in self.datasets if part.name in datasets.UNSTEADY]

    def build(self, context: BuildContext) -> Task:
        """Raises ConfigError where the package is missing."""
        if reason := self.unavailable():
            raise ConfigError(f"task reasoning_gym: {reason}")
        return self

    def make(self, seed: int) -> TaskData:
        """Raises DataError for a data set with too few different questions, or whose entries a file cannot keep."""
        seen: set[str] = set()
        train: list[TaskQuestion] = []
        heldout: dict[str, tuple[TaskQuestion, ...]] = {}
        counts = shares(self.questions, [part.weight for part in self.datasets])
        for part, count in zip(self.datasets, counts, strict=True):
            train += self._questions(part, f"{seed}/{part.name}/train", count, seen)
            heldout[part.name] = tuple(self._questions(part, f"{seed}/{part.name}/heldout", self.heldout, seen))
        Random(f"{seed}/order").shuffle(train)
        return TaskData(tuple(train), heldout)

    def _questions(self, part: GymData, place: str, count: int, seen: set[str]) -> Iterator[TaskQuestion]:
        """`count` questions that are not in `seen`, which gets them; the seed is a function of `place`."""
        size = TRIES * count + 100
        data = datasets.made(part.name, part.options, seed=Random(place).getrandbits(31), size=size)
        left = count
        for number in range(size):
            if not left:
                return
            entry = data[number]
            if entry["question"] not in seen:
                seen.add(entry["question"])
                left -= 1
                yield self._question(part, entry)
        if left:
            raise DataError(
                f"{part.name}: {count - left} different questions among {size}, not the {count} that are wanted; ask "
                "for fewer, or set options that make more"
            )

    def _question(self, part: GymData, entry: dict[str, Any]) -> TaskQuestion:
        name, answer = part.name, entry["answer"]
        try:
            text = to_text(entry)
        except TypeError as error:
            raise DataError(f"{name}: {error}") from None
        if from_text(text) != entry:
            raise DataError(f"{name}: an entry is another one when it is read again")
        known = str(answer) if isinstance(answer, str) and answer.strip() else None
        options = json.dumps(part.options, sort_keys=True)
        if known is not None and datasets.scorer(name, options).score_answer(known, from_text(text)) != 1.0:
            raise DataError(f"{name}: its scorer does not accept the entry's own answer {known!r:.80}")
        if not answers.trusted(name, entry):
            raise DataError(f"{name}: its scorer would run the entry's own answer {known!r:.80}")
        turns = [] if self.system_prompt is None else [Message("system", self.system_prompt)]
        return TaskQuestion(
            messages=(*turns, Message("user", entry["question"])),
            answer=known or f"any answer that the scorer of {name} accepts",
            source=f"reasoning_gym/{name}",
            extra={"dataset": name, "options": options, "entry": text},
            scored_answer=known,
        )


def shares(count: int, weights: Sequence[float]) -> list[int]:
    """`count` in shares of these weights: whole numbers that add up to it, the largest remainders rounded up."""
    exact = [count * weight / sum(weights) for weight in weights]
    found = [int(share) for share in exact]
    order = sorted(range(len(weights)), key=lambda i: found[i] - exact[i])
    for i in order[: count - sum(found)]:
        found[i] += 1
    return found
