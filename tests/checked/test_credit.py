"""A run takes of a credit what the conformance kit takes, and refuses what that refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy
import pytest
import torch
from ampo_registry import CreditGroup, CreditSpec, LogProbs, PluginError, StepContext
from ampo_registry.testing import check_credit, example_credit_groups, example_step

from ampo_core.checked.call import Asked
from ampo_core.checked.credit import CheckedCredit

FINE: dict[str, Any] = {
    "int": 1,
    "float": -0.5,
    "numpy number": numpy.float32(0.5),
    "list": [0.5] * 4,
    "list of tensors": [torch.tensor(0.5)] * 4,
    "log-probs": LogProbs([-0.5] * 4),
    "numpy": numpy.zeros(4),
    "large": [1e300] * 4,
    **{f"{dtype}": torch.full((4,), 0.5, dtype=dtype) for dtype in (torch.bfloat16, torch.float16, torch.int64)},
    "scalar bfloat16": torch.tensor(0.5, dtype=torch.bfloat16),
}
WRONG: dict[str, Any] = {
    "bool": True,
    "bools": [True] * 4,
    "bool tensor": torch.ones(4, dtype=torch.bool),
    "numpy bools": numpy.ones(4, dtype=bool),
    "complex": torch.ones(4, dtype=torch.complex64),
    "text": "much",
    "texts": ["much"] * 4,
    "nothing": None,
    "a set": {0.5},
    "nan": float("nan"),
    "a nan": torch.tensor([0.0, 0.0, 0.0, float("nan")], dtype=torch.bfloat16),
    "too long": [0.5] * 5,
    "column": torch.zeros(4, 1),
}


class Saying(CreditSpec):
    """The first sample of each group is worth `value`, all others 0."""

    type: Literal["saying"] = "saying"
    fault: str = ""

    def credit(self, groups: Sequence[CreditGroup], context: StepContext) -> Any:
        value = {**FINE, **WRONG}.get(self.fault, 0.0)
        found = [[value, *[0.0] * (len(group.samples) - 1)] for group in groups]
        return {"tensors": [torch.zeros(3)] * len(groups), "tuples": tuple(map(tuple, found))}.get(self.fault, found)


def refusals(fault: str) -> tuple[bool, bool]:
    """Whether the kit refuses it, and whether a run does."""
    spec, groups = Saying(fault=fault), example_credit_groups()[:1]
    said = []
    for ask in (
        lambda: check_credit(spec, groups),
        lambda: CheckedCredit(Asked.of(spec)).credit(groups, example_step()),
    ):
        try:
            ask()
            said.append(False)
        except (AssertionError, PluginError):
            said.append(True)
    return said[0], said[1]


@pytest.mark.parametrize("fault", [*FINE, "tuples"])
def test_both_take_numbers_of_any_precision(fault: str) -> None:
    assert refusals(fault) == (False, False)


@pytest.mark.parametrize("fault", [*WRONG, "tensors"])
def test_both_refuse_what_holds_none(fault: str) -> None:
    assert refusals(fault) == (True, True)
