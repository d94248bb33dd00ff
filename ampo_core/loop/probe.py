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
TOKENS = 64


@dataclass(frozen=True, slots=True)
class Probe:
    """Compares after every `EVERY`-th sync, the first one included; raises as `check_parity` does over `limit`."""

    sampler: Sampler
    learner: Learner
    limit: float | None

    def after(self, step: int, questions: Sequence[Question]) -> dict[str, float]:
        """The gap after the sync of `step`, nats a token, over an answer of at most `TOKENS` tokens a rank; empty where
        none is due. Collective."""
        if (step - 1) % EVERY:
            return {}
        ranks, options = self.sampler.ranks, self.sampler.options
        question = questions[ranks.rank % len(questions)]
        request = RolloutRequest(
            question.prompt_token_ids, (derive_seed("probe", self.sampler.seed, step, ranks.rank),)
        )
        short = replace(options, max_response_tokens=min(TOKENS, options.max_response_tokens))
        ((rollout,),) = self.sampler.generate([request], short)
        pair = TokenPair(question.prompt_token_ids, rollout.token_ids)
        (own,) = self.learner.logprobs([pair], temperature=options.temperature)
        apart = float((own.cpu() - torch.tensor(rollout.logprobs)).abs().sum())
        sums = torch.tensor([apart, len(rollout.token_ids)], dtype=torch.float64, device=ranks.device)
        total, tokens = ranks.sum(sums).tolist()
        check_parity(total / tokens, self.limit, step)
        return {"policy/probe_logprob_gap": total / tokens}
