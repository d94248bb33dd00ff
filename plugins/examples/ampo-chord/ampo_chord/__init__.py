"""Loss `chord`: −φ(p) log π with φ(p) = p(1 − p), which learns most from what the student is unsure of (CHORD-φ,
arXiv 2508.11408)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ampo_registry import ComponentSpec, LossSpec, LossView, hookimpl

if TYPE_CHECKING:
    import torch


class Chord(LossSpec):
    """Imitates a teacher's tokens, those least that the student is sure of or would never write."""

    type: Literal["chord"] = "chord"
    logs: ClassVar[tuple[str, ...]] = ("phi",)

    def token_losses(self, view: LossView) -> torch.Tensor:
        """−φ(p) log p of each token, p the student's probability of it; φ is a weight without gradient."""
        p = view.log_probs.detach().exp()
        phi = p * (1.0 - p)
        view.measure("phi", phi)
        return -phi * view.log_probs


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    """What this distribution brings."""
    return [Chord]
