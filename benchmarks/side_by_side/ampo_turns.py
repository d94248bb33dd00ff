"""A plugin for `ampo-run --plugin`: lets a train job take turns, and brings a reward that differs in every group.

Imports only the registry, so that the worker of another trainer can use the same reward.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from ampo_registry import ComponentSpec, Grade, GradeRequest, RewardSpec, RunContext, StepReport, hookimpl
from turns import REPORT, Turns

HOPS = ("rollout", "reward", "guidance", "update", "sync")


class VowelShare(RewardSpec):
    """The share of vowels: cheap, and different for nearly every random text, so that all of them are trained on."""

    type: Literal["vowel_share"] = "vowel_share"

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        return [Grade(vowel_share(request.text), correct=False, formatted=False) for request in requests]

    def check_truth(self, answer: str) -> str | None:
        return None


def vowel_share(text: str) -> float:
    return sum(text.count(letter) for letter in "aeiou") / max(1, len(text))


_turns = Turns() if REPORT in os.environ else None


@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    return [VowelShare]


@hookimpl
def ampo_run_started(context: RunContext) -> None:
    if _turns is not None:
        _turns.wait()


@hookimpl
def ampo_step_finished(report: StepReport, context: RunContext) -> None:
    if _turns is None:
        return
    metrics = report.metrics
    _turns.report(
        {hop: metrics[f"time/{hop}_s"] for hop in HOPS if f"time/{hop}_s" in metrics},
        generated=metrics["tokens/generated"],
        trained=metrics["tokens/trained"],
        padding=metrics["tokens/padding"],
        reward=metrics["reward/mean"],
        length=metrics["response/length_mean"],
        grad_norm=metrics["policy/grad_norm"],
    )
    _turns.wait()
