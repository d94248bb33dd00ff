"""Whether sampler and learner agree, where the batches themselves cannot tell.

A batch that was sampled ahead comes from an older policy than the learner's when its turn comes. So now and then, right
after a sync, a few short answers are sampled for this alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from ampo_registry.types import Question, RolloutRequest

from ampo_core.data.seeds import derive_seed
from ampo_core.learner.learner import Learner
from ampo_core.learner.packing import TokenPair
from ampo_core.learner.tokens import tensor_of
from ampo_core.loop.old_policy import check_parity
from ampo_core.loop.sampling import Sampler

EVERY = 10
ANSWERS, TOKENS = 16, 64
"""Of all ranks, and of an answer at most: enough tokens that a single unlikely one does not decide."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Compares after every `EVERY`-th sync, the first one included; raises as `check_parity` does over `limit`."""

    sampler: Sampler
    learner: Learner
    limit: float | None

    def after(self, step: int, questions: Sequence[Question]) -> dict[str, float]:
        """The gap after the sync of `step`, nats a token, over a few short answers to `questions`; empty where none is
        due. Collective."""
        if (step - 1) % EVERY:
            return {}
        ranks, options = self.sampler.ranks, self.sampler.options
        requests = [
            RolloutRequest(
                questions[place % len(questions)].prompt_token_ids,
                (derive_seed("probe", self.sampler.seed, step, place),),
            )
            for place in range(ANSWERS)
        ]
        mine = ranks.shard(requests)
        short = replace(options, max_response_tokens=min(TOKENS, options.max_response_tokens))
        rollouts = [rollout for group in self.sampler.generate(mine, short) for rollout in group]
        pairs = [
            TokenPair(one.prompt_token_ids, rollout.token_ids) for one, rollout in zip(mine, rollouts, strict=True)
        ]
        found = self.learner.logprobs(pairs, temperature=options.temperature)
        sums = torch.zeros(2, dtype=torch.float64)
        for rollout, own in zip(rollouts, found, strict=True):
            gap = (own.cpu() - tensor_of(rollout.logprobs)).abs().sum()
            sums += torch.tensor([float(gap), len(rollout.token_ids)])
        total, tokens = ranks.sum(sums.to(ranks.device)).tolist()
        check_parity(total / tokens, self.limit, step)
        return {"policy/probe_logprob_gap": total / tokens}
