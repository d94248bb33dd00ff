"""Aggregator `my_aggregator`: between every token alike and every sequence alike."""

from typing import TYPE_CHECKING, Literal

from ampo_registry import AggregatorSpec, ComponentSpec, Totals, hookimpl

if TYPE_CHECKING:
    import torch


class MyAggregator(AggregatorSpec):
    """A sequence weighs as the root of its length: a long one more than a short one, but not by all its tokens."""

    type: Literal["my_aggregator"] = "my_aggregator"

    def token_weights(self, lengths: "torch.Tensor", totals: Totals) -> "torch.Tensor":
        """`lengths` [sequences] int64 -> [sequences] float64, the weight of every token of each sequence."""
        return 1.0 / (max(totals.sequences, 1) * lengths.clamp(min=1).double().sqrt())


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyAggregator]
