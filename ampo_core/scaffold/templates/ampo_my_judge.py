"""Judge `my_judge`: a frozen model that is surer of itself, or less sure, than it was trained to be."""

from collections.abc import Sequence
from typing import Literal

from ampo_registry import BuildContext, ComponentSpec, Judge, JudgeRequest, JudgeSpec, LogProbs, hookimpl
from pydantic import Field, PositiveFloat


class MyJudge(JudgeSpec):
    """A model folder, asked at a temperature of its own times the run's. It must have the student's vocabulary."""

    type: Literal["my_judge"] = "my_judge"
    path: str = Field(min_length=1, description="Hugging Face folder")
    heat: PositiveFloat = Field(default=0.8, description="below 1 its likely tokens are likelier still")

    @property
    def model(self) -> str | None:
        """The folder that is looked for before the run, and stands in its manifest."""
        return self.path

    def build(self, context: BuildContext) -> Judge:
        """Load the model, as the learner loads its own."""
        return Heated(context.load_frozen(self.path, None), self.heat)


class Heated:
    def __init__(self, model: Judge, heat: float) -> None:
        self.model, self.heat = model, heat

    def logprobs(self, requests: Sequence[JudgeRequest], temperature: float) -> list[LogProbs]:
        """For each request the log-prob of each of its tokens, in nats."""
        return self.model.logprobs(requests, temperature * self.heat)


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyJudge]
