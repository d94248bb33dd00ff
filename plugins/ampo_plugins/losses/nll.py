"""Loss `nll`: −log π, supervised fine-tuning on the tokens of a term, whatever they earned (arXiv 2203.02155)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ampo_registry import LossSpec, LossView

if TYPE_CHECKING:
    import torch


class NegativeLogLikelihood(LossSpec):
    """Negative log-likelihood: imitates the tokens."""

    type: Literal["nll"] = "nll"

    def token_losses(self, view: LossView) -> torch.Tensor:
        """−log π of each token."""
        return -view.log_probs
