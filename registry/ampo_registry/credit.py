"""Advantages: the free form, which sees all groups of a batch and the step, and the short one of rewards alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeGuard, cast

from ampo_registry.errors import PluginError
from ampo_registry.protocols import Advantage, BuildContext
from ampo_registry.samples import Sample
from ampo_registry.specs import ComponentSpec
from ampo_registry.step import StepContext
from ampo_registry.types import Question, Selection

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class CreditGroup:
    """Samples that are compared among themselves, and the teacher answers that were selected for their question."""

    question: Question
    samples: tuple[Sample, ...]
    selections: tuple[Selection, ...] = ()


class Credit(Protocol):
    """Makes advantages of all groups of a batch."""

    def credit(
        self, groups: Sequence[CreditGroup], context: StepContext
    ) -> Sequence[Sequence[float | Sequence[float] | torch.Tensor]]: ...


class CreditSpec(ComponentSpec):
    """Says how good each sample was, or each of its tokens: the free form of an advantage."""

    kind: ClassVar[str] = "advantage"
    behaviour: ClassVar[tuple[str, ...]] = ("credit",)

    @property
    def reads_selections(self) -> bool:
        """True if it reads `selections`: pool and selector then run on all questions of the batch."""
        return False

    def check(self, questions: Sequence[Question], judges: Sequence[str], teachers: Sequence[str]) -> None:
        """Called once before anything starts, with all training questions, the names of the judges and of all
        teachers. Raise DataError or ConfigError for what it cannot serve."""

    def build(self, context: BuildContext) -> Credit | Advantage:
        return self

    def credit(
        self, groups: Sequence[CreditGroup], context: StepContext
    ) -> Sequence[Sequence[float | Sequence[float] | torch.Tensor]]:
        """For each group one advantage for each of its samples, in order: a number, or one number for each token of its
        response, context included.

        A collective call, also when there are no groups: every rank makes it with equal arguments and must give equal
        results. What is said of a sample without a verdict is not used: it is not trained.
        """
        self._missing("credit")


class AdvantageSpec(CreditSpec):
    """Turns the rewards of an augmented group into advantages: the short form."""

    behaviour: ClassVar[tuple[str, ...]] = ("advantages",)

    def build(self, context: BuildContext) -> Advantage:
        return self

    def advantages(self, rewards: torch.Tensor, correct: torch.Tensor, off_policy: torch.Tensor) -> torch.Tensor:
        """`rewards` [n] float64, `correct` [n] bool, `off_policy` [n] bool -> [n] float64. Equal rewards give
        exactly 0. `n` is 1 to G: a member on which the verifier gave no verdict is left out."""
        self._missing("advantages")

    def credit(
        self, groups: Sequence[CreditGroup], context: StepContext
    ) -> Sequence[Sequence[float | Sequence[float] | torch.Tensor]]:
        """Each group compared within itself (Eq. 1 and 6)."""
        return [compared(self, group) for group in groups]


def credit_of(
    component: Credit | Advantage, groups: Sequence[CreditGroup], context: StepContext
) -> Sequence[Sequence[float | Sequence[float] | torch.Tensor]]:
    """What an advantage of either form says of `groups`: for one that another holds."""
    if is_short(component):
        return [compared(component, group) for group in groups]
    return cast(Credit, component).credit(groups, context)


def is_short(component: Credit | Advantage) -> TypeGuard[Advantage]:
    """True for the short form: one with `advantages` and no `credit` of its own."""
    credit = getattr(component, "credit", None)
    own = credit is not None and getattr(credit, "__func__", None) is not AdvantageSpec.credit
    return hasattr(component, "advantages") and not own


def compared(advantage: Advantage, group: CreditGroup) -> list[float]:
    """The advantage of each sample of `group` by the short form. One without a verdict is no evidence: the others are
    compared among themselves, and its advantage is 0.

    Raises PluginError for what is not one number for each sample.
    """
    import torch

    known = [i for i, sample in enumerate(group.samples) if sample.verified]
    samples = [group.samples[i] for i in known]
    values = [0.0] * len(group.samples)
    if not samples:
        return values
    found = cast(
        object,
        advantage.advantages(
            torch.tensor([sample.reward for sample in samples], dtype=torch.float64),
            torch.tensor([sample.grade.correct for sample in samples]),
            torch.tensor([sample.off_policy for sample in samples]),
        ),
    )
    if not isinstance(found, torch.Tensor) or found.shape != (len(samples),):
        shown = f"shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else repr(found)[:80]
        raise PluginError(
            f"{type(advantage).__name__}.advantages gave {shown} for {len(samples)} rewards of question "
            f"{group.question.uid[:12]}; there must be one number for each"
        )
    for place, i in enumerate(known):
        values[i] = float(found[place])
    return values


def numbers_of(value: object) -> torch.Tensor:
    """What a credit says of a sample, float64 on the CPU: [] or [tokens], of a number, a sequence of numbers, or a
    tensor or array of any precision. Raises TypeError or ValueError for anything else, bools among it."""
    import torch

    if not isinstance(value, torch.Tensor) and not hasattr(value, "__array__"):
        first: object = next(iter(cast("Sequence[object]", value)), 0.0) if isinstance(value, Sequence) else value
        if not isinstance(first, int | float | torch.Tensor) or isinstance(first, bool):
            raise TypeError(f"{type(first).__name__} is no number")
        return torch.as_tensor(value, dtype=torch.float64)
    made = torch.as_tensor(value)
    if made.dtype is torch.bool or made.is_complex():
        raise TypeError(f"{made.dtype} is no type of an advantage")
    return made.detach().double().cpu()
