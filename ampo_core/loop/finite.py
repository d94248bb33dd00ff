"""Whether what losses gave was finite, looked at once an update: an accelerator need not be waited for before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from ampo_registry.samples import Sample
from ampo_registry.views import LossView

from ampo_core.checked.call import about
from ampo_core.checked.component import asked_of
from ampo_core.loop.objective import Term


@dataclass(frozen=True, slots=True)
class Fault:
    """What was not finite: `who` gave it, and the whole sentence."""

    who: str
    text: str


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the loss of `term`, or without one the KL, gave for the tokens of `samples`, laid end to end: `values`
    [tokens], or where `gradient` is set their gradient. `given`: finite numbers that it made them of."""

    term: Term | None
    samples: Sequence[Sample | None]
    lengths: torch.Tensor
    values: torch.Tensor
    given: torch.Tensor
    gradient: bool


class Finite:
    """Keeps values and gradients of the losses of a mini-batch until `fault`."""

    def __init__(self) -> None:
        self._seen: list[_Seen] = []
        self._fault: Fault | None = None

    def see(
        self,
        term: Term | None,
        view: LossView,
        samples: Sequence[Sample | None],
        make: Callable[[LossView], torch.Tensor],
    ) -> torch.Tensor:
        """What `make`, the loss of `term` or without one the KL, makes of `view`: [tokens]. Its values are remembered,
        and as soon as it is there the gradient that goes through it, and through nothing else."""
        given = torch.stack([values.detach().isfinite().all() for values in (view.log_probs, *view.given.values())])
        given, own = given.all(), view.log_probs.view_as(view.log_probs)

        def keep(values: torch.Tensor, *, gradient: bool) -> None:
            self._seen.append(_Seen(term, samples, view.lengths, values.detach(), given, gradient))

        values = make(replace(view, log_probs=own))
        keep(values, gradient=False)
        if own.requires_grad:
            own.register_hook(lambda gradient: keep(gradient, gradient=True))  # type: ignore[no-untyped-call]
        return values

    def fault(self) -> Fault | None:
        """The first that was not finite since the mini-batch began, with term and question. A policy whose own
        log-probs are not finite is no fault of a loss, and is seen by the learner."""
        seen, self._seen = self._seen, []
        if seen and self._fault is None:
            fine = torch.stack([one.values.isfinite().all() | ~one.given for one in seen]).tolist()
            wrong = next((one for one, good in zip(seen, fine, strict=True) if not good), None)
            self._fault = None if wrong is None else _told(wrong)
        return self._fault


def _told(seen: _Seen) -> Fault:
    token = int((~seen.values.isfinite()).nonzero()[0])
    ends = seen.lengths.cumsum(0).tolist()
    sample = seen.samples[next(i for i, end in enumerate(ends) if token < end)]
    uid = "" if sample is None else sample.question.uid
    found, expected = f"{float(seen.values[token]):g}", "finite numbers"
    if seen.gradient:
        found, expected = f"values with a gradient that is not finite ({found})", "a finite gradient"
    if seen.term is None:
        question = f"question {uid[:12]}: " if uid else ""
        return Fault("objective.kl", f"objective.kl: {question}the estimate gave {found}; expected {expected}")
    asked = asked_of(seen.term.loss, "loss")
    with about(uid):
        text = asked.wrong("token_losses", f"{found} in the term {seen.term.name}", expected)
    return Fault(f"{asked.kind} {asked.name} of {seen.term.name}", str(text))
