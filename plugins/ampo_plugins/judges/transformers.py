"""Judge `transformers`: a model folder, loaded as the policy is."""

from __future__ import annotations

from typing import Literal

from ampo_registry import BuildContext, Judge, JudgeSpec
from pydantic import Field

from ampo_plugins.judges.vocabulary import check_model


class TransformersJudge(JudgeSpec):
    """A model in Hugging Face format, whole on each rank, in the learner's own forward pass."""

    type: Literal["transformers"] = "transformers"
    path: str = Field(min_length=1, description="Hugging Face folder or Hub name")
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="of its weights; null = the policy's"
    )

    @property
    def model(self) -> str | None:
        return self.path

    def check(self, context: BuildContext) -> None:
        """Raises ConfigError for too few positions and another vocabulary."""
        check_model(self.path, context)

    def build(self, context: BuildContext) -> Judge:
        return context.load_frozen(self.path, self.dtype)
