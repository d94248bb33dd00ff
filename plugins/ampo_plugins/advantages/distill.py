"""Credit `distill`: on-policy distillation (arXiv 2306.13649, 2306.08543), with one judge or several.

    A_t = weight · (log π_judge(y_t) − log π_old(y_t)) + reward_weight · A        for the student's own tokens

The expectation of the first part over the student's tokens is −KL(π_old‖π_judge), token by token; `clip` or
`policy_gradient` follows it. Tokens that a teacher wrote get the second part alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ampo_registry import (
    EVERY_JUDGE,
    ON_POLICY,
    Advantage,
    BuildContext,
    ComponentField,
    ConfigError,
    Credit,
    CreditGroup,
    CreditSpec,
    DataError,
    JudgeRequest,
    LogProbs,
    PluginError,
    Question,
    Sample,
    Schedule,
    Scheduled,
    StepContext,
    credit_of,
)
from pydantic import Field

if TYPE_CHECKING:
    import torch


SELECTED = "selected"


class Distill(CreditSpec):
    """How much likelier a judge finds each of the student's tokens than the student did."""

    type: Literal["distill"] = "distill"
    judge: str = Field(
        default=SELECTED,
        description="name of the judge; selected: the one named like the teacher whose answer was selected",
    )
    field: str | None = Field(default=None, description="key of the row that names the judge, in the place of `judge`")
    weight: Scheduled = Field(default=1.0, description="of log π_judge − log π_old")
    reward: Annotated[CreditSpec, ComponentField("advantage")] = Field(
        default="group_normalized", validate_default=True, description="the reward's own advantage"
    )
    reward_weight: Scheduled = Field(default=0.0, description="of the reward's advantage")

    @property
    def judges(self) -> frozenset[str]:
        return frozenset({self.judge if self.field is None and self.judge != SELECTED else EVERY_JUDGE})

    @property
    def reads_selections(self) -> bool:
        return (self.field is None and self.judge == SELECTED) or self.reward.reads_selections

    def check(self, questions: Sequence[Question], judges: Sequence[str], teachers: Sequence[str]) -> None:
        """Raises DataError for a question or a teacher whose judge is not declared."""
        self.reward.check(questions, judges, teachers)
        if SELECTED in judges:
            raise ConfigError(f"judges.{SELECTED}: to distill that name means the selector's choice; take another one")
        missing: list[str] = []
        if self.field is not None:
            for number, question in enumerate(questions, start=1):
                if (name := value_at(question.extra, self.field)) not in judges:
                    raise DataError(
                        f"objective.advantage.field: {self.field} of question {number} is {name!r}; expected the name "
                        f"of a judge: {', '.join(judges)}"
                    )
        elif self.judge == SELECTED:
            missing = [name for name in teachers if name not in judges]
        if missing:
            raise DataError(
                f"objective.advantage.judge: selected: no judge is named like {', '.join(map(repr, missing))}, whose "
                f"answers may be selected; declared: {', '.join(judges)}"
            )

    def warnings(self) -> Sequence[tuple[str, str]]:
        idle = self.field is not None and self.judge != SELECTED
        return [("judge", f"does nothing beside field: {self.field}")] if idle else []

    def build(self, context: BuildContext) -> Credit:
        return Distillation(
            self,
            context.build(self.weight, "weight"),
            context.build(self.reward, "reward"),
            context.build(self.reward_weight, "reward_weight"),
        )


def value_at(row: Mapping[str, Any], key: str) -> object:
    """The value of `row` at a dotted key; None where there is none."""
    value: object = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


@dataclass(frozen=True, slots=True)
class Distillation:
    """`Distill`, built."""

    spec: Distill
    weight: Schedule
    reward: Credit | Advantage
    reward_weight: Schedule

    def credit(
        self, groups: Sequence[CreditGroup], context: StepContext
    ) -> Sequence[Sequence[float | Sequence[float] | torch.Tensor]]:
        """For each sample a tensor [tokens] float64, or the reward's part alone where no judge was chosen."""
        weight, share = context.value(self.weight), context.value(self.reward_weight)
        rewards = credit_of(self.reward, groups, context)
        found = self._log_ratios(groups, context)
        return [
            [
                _added(found.get((i, j)), weight, _scaled(rewards[i][j], share), sample)
                for j, sample in enumerate(group.samples)
            ]
            for i, group in enumerate(groups)
        ]

    def _judge(self, group: CreditGroup) -> str | None:
        """The judge of a group; None where the selector chose no answer."""
        if self.spec.field is not None:
            return str(value_at(group.question.extra, self.spec.field))
        if self.spec.judge != SELECTED:
            return self.spec.judge
        return group.selections[0].guidance.teacher if group.selections else None

    def _log_ratios(self, groups: Sequence[CreditGroup], context: StepContext) -> dict[tuple[int, int], torch.Tensor]:
        """(group, sample) -> log π_judge − log π_old, for samples with tokens of the student's own."""
        places: dict[str, list[tuple[int, int]]] = {}
        for i, group in enumerate(groups):
            known = [j for j, sample in enumerate(group.samples) if sample.verified and sample.spans(ON_POLICY)]
            if (name := self._judge(group)) is not None:
                places.setdefault(name, []).extend((i, j) for j in known)
        found: dict[tuple[int, int], torch.Tensor] = {}
        for name, asked in sorted(places.items()):
            samples = [groups[i].samples[j] for i, j in asked]
            requests = [JudgeRequest(sample.prompt_token_ids, sample.token_ids) for sample in samples]
            ratios = _log_ratios(context.judge(name).logprobs(requests), context.old_logprobs(samples), name)
            own = [
                ratio[a:b] for ratio, sample in zip(ratios, samples, strict=True) for a, b in sample.spans(ON_POLICY)
            ]
            if own:
                context.log(f"distill/kl/{name}", -sum(float(part.sum()) for part in own) / sum(map(len, own)))
            found |= dict(zip(asked, ratios, strict=True))
        return found


def _scaled(value: float | Sequence[float] | torch.Tensor, share: float) -> float | torch.Tensor:
    import torch

    if isinstance(value, int | float | torch.Tensor):
        return share * value
    return share * torch.tensor(value, dtype=torch.float64)


def _log_ratios(theirs: Sequence[LogProbs], old: Sequence[LogProbs], name: str) -> list[torch.Tensor]:
    """log π_judge − log π_old of each sample's tokens: [tokens] float64. Raises PluginError for what is no number."""
    import torch

    def tensor(values: LogProbs) -> torch.Tensor:
        return torch.frombuffer(bytearray(values.buffer), dtype=torch.float32).double()

    ratios = [tensor(judged) - tensor(before) for judged, before in zip(theirs, old, strict=True)]
    if not all(bool(ratio.isfinite().all()) for ratio in ratios):
        raise PluginError(f"distill: the judge {name} gave a log-prob that is no finite number")
    return ratios


def _added(log_ratio: torch.Tensor | None, weight: float, reward: float | torch.Tensor, sample: Sample) -> torch.Tensor:
    """`reward`, plus `weight` times `log_ratio` on the student's own tokens."""
    import torch

    base = reward if isinstance(reward, torch.Tensor) else torch.tensor(reward, dtype=torch.float64)
    if log_ratio is None:
        return base
    values = base.double().expand(len(sample.token_ids)).clone()
    for start, end in sample.spans(ON_POLICY):
        values[start:end] += weight * log_ratio[start:end]
    return values
