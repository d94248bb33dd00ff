"""Judges: frozen models that say how likely given tokens are after a given prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ampo_registry.tokens import LogProbs, TokenIds

START, POLICY = "start", "policy"
"""The judges that every run has: the model that it started from, and the policy as it is now."""
EVERY_JUDGE = "*"
"""In a component's `judges`: it may ask any that is declared."""


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """Tokens to be judged as what follows a prompt; the prompt need not be the one that they were written under."""

    prompt_token_ids: TokenIds
    token_ids: TokenIds

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_token_ids", TokenIds.of(self.prompt_token_ids))
        object.__setattr__(self, "token_ids", TokenIds.of(self.token_ids))

    def __len__(self) -> int:
        return len(self.prompt_token_ids) + len(self.token_ids)


class Judge(Protocol):
    """A judge of one rank. Where it has methods `sleep` and `close` they are called too: `sleep` before the sampler
    needs the memory, until it is asked again, and `close` at the end of the run."""

    def logprobs(self, requests: Sequence[JudgeRequest], temperature: float) -> list[LogProbs]:
        """For each request the log-prob of each of its tokens, in nats. `requests` are this rank's share, at least
        one, longest first."""
        ...


class StepJudge(Protocol):
    """A judge as hooks of a step see it. A collective call: every rank makes it with equal requests."""

    def logprobs(self, requests: Sequence[JudgeRequest], temperature: float | None = None) -> list[LogProbs]:
        """For each request the log-prob of each of its tokens, in nats; without `temperature` at the rollout's."""
        ...
