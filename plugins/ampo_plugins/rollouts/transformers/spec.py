"""The options of the `transformers` rollout."""

from __future__ import annotations

from typing import Literal

from ampo_registry import BuildContext, RolloutEngine, RolloutSpec
from pydantic import Field, PositiveInt


class TransformersRollout(RolloutSpec):
    """Batched sampling with Hugging Face transformers; needs no inference server.

    A sample's randomness depends on its seed alone, not on what else is in the batch. Its logits may still differ
    in the last bits with the shape of the batch, so that a token at the very edge of an interval can change.
    """

    type: Literal["transformers"] = "transformers"
    max_batch_sequences: PositiveInt = Field(default=256, description="responses decoded at once")
    max_batch_tokens: PositiveInt = Field(
        default=524_288, description="cap on responses at once × (prompt + response limit): bounds the cache"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="auto: what the model's block says, else float32 on a CPU and the checkpoint's own on a GPU",
    )

    def build(self, context: BuildContext) -> RolloutEngine:
        """Load `context.model_path` into an engine that owns this copy of the weights."""
        from ampo_plugins.rollouts.transformers.engine import TransformersEngine, load_model

        return TransformersEngine(
            load_model(context, self.dtype),
            context.tokenizer,
            max_batch_sequences=self.max_batch_sequences,
            max_batch_tokens=self.max_batch_tokens,
        )
