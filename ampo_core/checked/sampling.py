"""Rollout engines: as many responses as seeds, each with tokens, log-probs, and the version that it was told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, get_args

from ampo_registry.tokens import LogProbs
from ampo_registry.types import FinishReason, Rollout, RolloutRequest, SamplingOptions

from ampo_core.checked.call import Asked, shown
from ampo_core.checked.component import Checked

if TYPE_CHECKING:
    import torch

ROUNDING = 1e-4
"""A log-prob of a certain token may be rounded to so much above 0."""


class CheckedEngine(Checked):
    """Keeps the version of the weights that the engine was given last, which its rollouts must have."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._version: int | None = None

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]], policy_version: int) -> None:
        self.asked.ask("load_weights", weights, policy_version=policy_version)
        self._version = policy_version

    def generate(self, requests: Sequence[RolloutRequest], options: SamplingOptions) -> list[list[Rollout]]:
        kept, version = tuple(requests), self._version
        found: object = self.asked.ask("generate", kept, options)
        if not isinstance(found, list | tuple) or len(found) != len(kept):
            many = f"{len(found)} lists" if isinstance(found, list | tuple) else shown(found)
            raise self.asked.wrong("generate", f"{many} for {len(kept)} requests", "a list of rollouts for each")
        for number, (request, group) in enumerate(zip(kept, found, strict=True)):
            if not isinstance(group, list | tuple) or len(group) != len(request.seeds):
                many = f"{len(group)} rollouts" if isinstance(group, list | tuple) else shown(group)
                text = f"{many} for the {len(request.seeds)} seeds of request {number}"
                raise self.asked.wrong("generate", text, "one rollout for each seed")
            for rollout in group:
                fault = _fault(rollout, options.limit_of(request), version)
                if fault is not None:
                    raise self.asked.wrong("generate", f"{fault[0]} for request {number}", fault[1])
        return [list(group) for group in found]


def wrong_log_prob(values: LogProbs) -> float | None:
    """The first of `values` that is no finite number of at most 0, None if there is none."""
    import numpy

    numbers = numpy.frombuffer(values.buffer, dtype=numpy.float32)
    if not len(numbers) or (numbers.max() <= ROUNDING and numbers.min() > -numpy.inf):
        return None
    return float(numbers[~((numbers <= ROUNDING) & numpy.isfinite(numbers))][0])


def _fault(rollout: object, limit: int, version: int | None) -> tuple[str, str] | None:
    """What is wrong with a response of at most `limit` tokens, and what was expected."""
    if not isinstance(rollout, Rollout):
        return shown(rollout), "a Rollout"
    tokens, found = len(rollout.token_ids), len(rollout.logprobs)
    if not tokens or tokens > limit:
        return f"a response of {tokens} tokens", f"1 to {limit}, the stop token among them"
    if found != tokens:
        return f"{found} log-probs for {tokens} tokens", "one for each"
    if (wrong := wrong_log_prob(rollout.logprobs)) is not None:
        return f"a log-prob of {wrong:g}", "finite numbers of at most 0"
    if rollout.finish_reason not in get_args(FinishReason):
        return f"the finish reason {shown(rollout.finish_reason)}", " or ".join(map(repr, get_args(FinishReason)))
    text: object = rollout.text
    if not isinstance(text, str):
        return f"the text {shown(text)}", "a text"
    if version is not None and rollout.policy_version != version:
        return f"policy version {shown(rollout.policy_version)}", f"{version}, that of the weights it was given last"
    return None
