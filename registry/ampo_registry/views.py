"""What a loss sees: the tokens of one term in some sequences, laid end to end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ampo_registry.errors import PluginError
from ampo_registry.step import Schedule, StepContext

if TYPE_CHECKING:
    import torch

OWN_METRICS = frozenset(
    {
        *("loss", "loss_on", "loss_off", "entropy", "grad_norm", "learning_rate", "importance_weight"),
        *("empty_updates", "skipped_updates", "rollout_logprob_gap", "probe_logprob_gap"),
    }
)
"""Names behind `policy/` that no loss may measure something else under."""


@dataclass(frozen=True, slots=True, eq=False)
class LossView:
    """[tokens] tensors of one term, sequence after sequence; `lengths` [sequences] int64 are their tokens of the term.

    `log_probs` are those of the policy that is trained, the only ones with a gradient besides `entropies`; log-probs
    are in nats and at the rollout's temperature. `advantages` are each sequence's own, spread over its tokens.
    What else a loss reads it names in `needs`. A token's loss may depend on the tokens of its own sequence only.
    """

    log_probs: torch.Tensor
    advantages: torch.Tensor
    lengths: torch.Tensor
    given: Mapping[str, torch.Tensor] = field(default_factory=dict[str, "torch.Tensor"])
    """What was asked for in `needs`, by name."""
    context: StepContext = field(default_factory=lambda: StepContext(1))
    """Where the run stands."""
    measured: dict[str, torch.Tensor] = field(default_factory=dict[str, "torch.Tensor"])
    """Sums over the tokens of what `measure` was told."""

    @property
    def old(self) -> torch.Tensor:
        """log π_old: the policy before the batch's first update."""
        return self._given("old")

    @property
    def rollout(self) -> torch.Tensor:
        """The sampler's log-probs of tokens that it wrote; log π_old where they are not known."""
        return self._given("rollout")

    @property
    def behaviour(self) -> torch.Tensor:
        """log π_φ: what the teacher's data recorded for its tokens, or the sampler for its own; 0 where neither did."""
        return self._given("behaviour")

    @property
    def reference(self) -> torch.Tensor:
        """The start model's log-probs."""
        return self._given("reference")

    def judge(self, name: str) -> torch.Tensor:
        """The log-probs of the judge `name`."""
        return self._given(name)

    @property
    def entropies(self) -> torch.Tensor:
        """Entropy of the policy at each token, in nats, with a gradient."""
        return self._given("entropy")

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of `values` [tokens] over each sequence: [sequences]."""
        return values.new_zeros(len(self.lengths)).index_add(0, self._owners(), values)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of `values` [tokens] over each sequence: [sequences]."""
        return self.sum(values) / self.lengths.to(values)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """`values` [sequences] at each token of its sequence: [tokens]."""
        return values.index_select(0, self._owners())

    def value(self, schedule: Schedule) -> float:
        """What `schedule`, built of a `Scheduled` option, comes to in this step."""
        return self.context.value(schedule)

    def measure(self, name: str, values: torch.Tensor) -> None:
        """Report the mean of `values` [tokens] as the metric `policy/NAME`, or of terms but the on-policy one
        `policy/NAME/TERM`. Nothing is trained by it.

        A sequence without a gradient may not be there, and counts as 0: measure what is 0 without an advantage. Raises
        PluginError for a name that is the core's, or values that are not one a token.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in OWN_METRICS:
            raise PluginError(
                f"the loss measures {name!r}: expected lower case letters, digits and _, and none of the core's "
                f"own names ({', '.join(sorted(OWN_METRICS))})"
            )
        if values.shape != self.log_probs.shape:
            raise PluginError(
                f"the loss measures {name!r} as {tuple(values.shape)}: expected one value for each of "
                f"{len(self.log_probs)} tokens"
            )
        total = values.detach().sum()
        self.measured[name] = self.measured[name] + total if name in self.measured else total

    def _owners(self) -> torch.Tensor:
        """The sequence of each token, [tokens]."""
        import torch

        numbers = torch.arange(len(self.lengths), device=self.lengths.device)
        return numbers.repeat_interleave(self.lengths, output_size=len(self.log_probs))

    def _given(self, name: str) -> torch.Tensor:
        if name not in self.given:
            raise PluginError(f"the loss reads {name}, which its `needs` does not name")
        return self.given[name]
