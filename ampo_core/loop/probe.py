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
from ampo_core.loop.old_policy import check_parity
from ampo_core.loop.sampling import Sampler

EVERY = 10
ANSWERS, TOKENS = 8, 64
"""Of each rank, and of an answer at most: enough tokens that a single unlikely one does not decide."""


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
        ranks, options, seed = self.sampler.ranks, self.sampler.options, self.sampler.seed
        places = range(ranks.rank, ANSWERS * ranks.world_size, ranks.world_size)
        prompts = [questions[place % len(questions)].prompt_token_ids for place in places]
        seeds = [derive_seed("probe", seed, step, place) for place in places]
        requests = [RolloutRequest(prompt, (drawn,)) for prompt, drawn in zip(prompts, seeds, strict=True)]
        short = replace(options, max_response_tokens=min(TOKENS, options.max_response_tokens))
        rollouts = [group[0] for group in self.sampler.generate(requests, short)]
        pairs = [TokenPair(prompt, rollout.token_ids) for prompt, rollout in zip(prompts, rollouts, strict=True)]
        sums = torch.zeros(2, dtype=torch.float64)
        log_probs = self.learner.logprobs(pairs, temperature=options.temperature)
        for rollout, own in zip(rollouts, log_probs, strict=True):
            apart = (own.cpu() - torch.tensor(rollout.logprobs)).abs().sum()
            sums += torch.tensor([float(apart), len(rollout.token_ids)])
        total, tokens = ranks.sum(sums.to(ranks.device)).tolist()
        check_parity(total / tokens, self.limit, step)
        return {"policy/probe_logprob_gap": total / tokens}
