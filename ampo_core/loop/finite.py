"""Whether what losses gave was finite, looked at once an update: an accelerator need not be waited for before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from ampo_registry.samples import Sample
from ampo_registry.views import LossView

from ampo_core.checked.call import about
from ampo_core.checked.component import asked_of
from ampo_core.loop.objective import Term


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a loss gave for the tokens of `samples`, laid end to end: `values` [tokens], or where `gradient` is set
    their gradient. `given`: finite numbers that it made them of."""

    term: Term
    samples: Sequence[Sample | None]
    lengths: torch.Tensor
    values: torch.Tensor
    given: torch.Tensor
    gradient: bool


class Finite:
    """Keeps values and gradients of the losses of a mini-batch until `check`."""

    def __init__(self) -> None:
        self._seen: list[_Seen] = []

    def see(self, term: Term, view: LossView, losses: torch.Tensor, samples: Sequence[Sample | None]) -> None:
        """Remember the `losses` of `term` on `view`, and their gradient as soon as it is there."""
        given = torch.stack([values.detach().isfinite().all() for values in (view.log_probs, *view.given.values())])
        given = given.all()

        def keep(values: torch.Tensor, *, gradient: bool) -> None:
            self._seen.append(_Seen(term, samples, view.lengths, values.detach(), given, gradient))

        keep(losses, gradient=False)
        if view.log_probs.requires_grad:
            view.log_probs.register_hook(lambda gradient: keep(gradient, gradient=True))  # type: ignore[no-untyped-call]

    def check(self) -> None:
        """Raise PluginFault for the first loss that is not finite, with term and question. A policy whose own log-probs
        are not finite is no fault of a loss, and is seen by the learner."""
        seen, self._seen = self._seen, []
        if not seen:
            return
        fine = torch.stack([one.values.isfinite().all() | ~one.given for one in seen]).tolist()
        wrong = next((one for one, good in zip(seen, fine, strict=True) if not good), None)
        if wrong is not None:
            _refuse(wrong)


def _refuse(seen: _Seen) -> None:
    token = int((~seen.values.isfinite()).nonzero()[0])
    ends = seen.lengths.cumsum(0).tolist()
    sample = seen.samples[next(i for i, end in enumerate(ends) if token < end)]
    found = f"{float(seen.values[token]):g}"
    with about("" if sample is None else sample.question.uid):
        asked = asked_of(seen.term.loss, "loss")
        if seen.gradient:
            text = f"values with a gradient that is not finite ({found}) in the term {seen.term.name}"
            raise asked.wrong("token_losses", text, "a finite gradient")
        raise asked.wrong("token_losses", f"{found} in the term {seen.term.name}", "finite numbers")
