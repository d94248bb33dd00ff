"""Three updates of a small model wherever this process may compute; prints what came of them as JSON.

python run_updates.py MODEL DTYPE ZERO_STAGE
"""

from __future__ import annotations

import json
import sys
from random import Random

import torch

from ampo_core.config.tree import DeepSpeedConfig, ModelConfig, OptimizerConfig
from ampo_core.distributed.ranks import join_ranks
from ampo_core.jobs.libraries import settle_libraries
from ampo_core.learner.learner import Learner
from ampo_core.learner.packing import TokenPair

WEIGHTS = (1.0, -0.5, 0.25, -0.75)


def main(path: str, dtype: str, stage: str) -> None:
    settle_libraries()
    random = Random(0)
    lengths = ((5, 40), (12, 3), (7, 90), (30, 17))
    pairs = [TokenPair(_tokens(random, prompt), _tokens(random, response)) for prompt, response in lengths]
    learner = Learner(
        ModelConfig.model_validate({"path": path, "dtype": dtype, "gradient_checkpointing": dtype == "bfloat16"}),
        OptimizerConfig(tokens_per_microbatch=128, learning_rate=1e-3),
        DeepSpeedConfig.model_validate({"zero_stage": int(stage)}),
        join_ranks(),
    )

    def loss(batch: list[int], log_probs: list[torch.Tensor], entropies: list[torch.Tensor]) -> torch.Tensor:
        parts = [WEIGHTS[i] * part.mean() - 0.1 * more.mean() for i, part, more in _zip(batch, log_probs, entropies)]
        return -torch.stack(parts).sum()

    before = learner.logprobs(pairs, temperature=0.9)
    norms = [learner.update(pairs, loss, learning_rate=1e-3, temperature=0.9, entropy=True).grad_norm for _ in range(3)]
    after = learner.logprobs(pairs, temperature=0.9)
    found = {
        "device": learner.ranks.device.type,
        "norms": norms,
        "before": torch.cat(before).tolist(),
        "after": torch.cat(after).tolist(),
    }
    print(json.dumps(found))
    learner.close()


def _zip(batch: list[int], *parts: list[torch.Tensor]) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    return list(zip(batch, *parts, strict=True))


def _tokens(random: Random, count: int) -> tuple[int, ...]:
    return tuple(random.randrange(3, 300) for _ in range(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
