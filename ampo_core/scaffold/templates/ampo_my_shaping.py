"""Shaping `my_shaping`: teachers' tokens count by the softplus of their log-ratio."""

from typing import TYPE_CHECKING, Literal

from ampo_registry import ComponentSpec, ShapingSpec, hookimpl

if TYPE_CHECKING:
    import torch


class MyShaping(ShapingSpec):
    """f(x) = log(1 + x): the ratio itself where it is small, its logarithm where it is large."""

    type: Literal["my_shaping"] = "my_shaping"

    def shape(self, log_ratio: "torch.Tensor") -> "torch.Tensor":
        """`log_ratio` [tokens] = log(π_θ/π_φ) -> [tokens], differentiable; finite from −1e4 to 20."""
        from torch.nn.functional import softplus

        return softplus(log_ratio)


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [MyShaping]
