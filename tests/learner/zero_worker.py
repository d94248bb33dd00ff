"""Run by every rank: trains a tiny model on uneven shares with each ZeRO stage and writes what came out.

    zero_worker.py MODEL OUT_FOLDER [CASE ...]

Case by case, three steps, the last after a reload: OUT_FOLDER/CASE.pt gets losses, gradient norms, log-probs and the
exported weights, from rank 0, and OUT_FOLDER/CASE/policy its policy.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import torch

from ampo_core.config.tree import DeepSpeedConfig, LoraConfig, ModelConfig, OptimizerConfig
from ampo_core.data.tokens import load_tokenizer
from ampo_core.distributed.ranks import Ranks, join_ranks
from ampo_core.jobs.libraries import settle_libraries
from ampo_core.learner.learner import Learner
from ampo_core.learner.packing import TokenPair

LENGTHS = (3, 9, 1, 6, 2, 30, 4, 12)
PAIRS = [TokenPair((1, 2 + i), tuple(4 + (7 * i + t) % 50 for t in range(n))) for i, n in enumerate(LENGTHS)]

CASES: dict[str, dict[str, Any]] = {
    "zero0": {"zero": {"zero_stage": 0}},
    "zero1": {"zero": {"zero_stage": 1}},
    "zero2": {"zero": {"zero_stage": 2}},
    "zero3": {"zero": {"zero_stage": 3}},
    "zero2_offload": {"zero": {"zero_stage": 2, "offload_optimizer": "cpu"}},
    "zero3_offload": {"zero": {"zero_stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"}},
    "zero3_lora": {"zero": {"zero_stage": 3}, "model": {"lora": LoraConfig(rank=4, alpha=8, dropout=0.0)}},
    "zero0_lora": {"zero": {"zero_stage": 0}, "model": {"lora": LoraConfig(rank=4, alpha=8, dropout=0.0)}},
    "zero1_bf16": {"zero": {"zero_stage": 1}, "model": {"dtype": "bfloat16"}},
    "zero2_bf16": {"zero": {"zero_stage": 2}, "model": {"dtype": "bfloat16"}},
    "zero3_bf16": {"zero": {"zero_stage": 3}, "model": {"dtype": "bfloat16"}},
}


def learner_of(model: str, case: dict[str, Any], ranks: Ranks) -> Learner:
    torch.manual_seed(0)
    return Learner(
        ModelConfig(**{"path": model, "dtype": "float32", "gradient_checkpointing": True, **case.get("model", {})}),
        OptimizerConfig(tokens_per_microbatch=40, learning_rate=1e-3, grad_clip=0.5),
        DeepSpeedConfig(**case["zero"]),
        ranks,
        reference="lora" in case.get("model", {}),
    )


def shares(step: int, ranks: Ranks) -> list[int]:
    """Step 1: by tokens; step 2: all on rank 0, so that the others have no trained token; step 3: round robin."""
    if step == 1:
        return ranks.balance([len(pair) for pair in PAIRS])
    if step == 2:
        return list(range(len(PAIRS))) if ranks.rank == 0 else []
    return ranks.shard(range(len(PAIRS)))


def train(learner: Learner, ranks: Ranks, steps: range) -> list[dict[str, float]]:
    found = []
    tokens = sum(LENGTHS)
    for step in steps:
        mine = shares(step, ranks)
        total = 0.0

        def loss(indices: list[int], log_probs: list[torch.Tensor], entropies: list[torch.Tensor]) -> torch.Tensor:
            nonlocal total
            part = -torch.cat(log_probs).sum() / tokens - 0.1 * torch.cat(entropies).sum() / tokens
            total += float(part.detach())
            return part

        report = learner.update([PAIRS[i] for i in mine], loss, learning_rate=1e-3, temperature=0.9, entropy=True)
        summed = float(ranks.sum(torch.tensor(total, dtype=torch.float64)))
        found.append({"loss": summed, "grad_norm": report.grad_norm})
    return found


def scores(learner: Learner, ranks: Ranks, *, reference: bool = False) -> list[list[float]]:
    mine = ranks.shard(PAIRS[:1])  # a rank without a sequence takes part all the same
    found = learner.logprobs(mine, temperature=1.0, reference=reference)
    return ranks.gather([part.tolist() for part in found], 1)


def run(name: str, model: str, out: Path, ranks: Ranks) -> None:
    learner = learner_of(model, CASES[name], ranks)
    start = scores(learner, ranks)
    steps = train(learner, ranks, range(1, 3))
    learner.save_state(out / name / "state")
    again = learner_of(model, CASES[name], ranks) if name in RESUMED else learner
    if again is not learner:
        again.load_state(out / name / "state")
        learner.close()
    steps += train(again, ranks, range(3, 4))
    found = {"steps": steps, "scores": scores(again, ranks), "start": start}
    if "lora" in name:
        found["reference"] = scores(again, ranks, reference=True)
        steps += train(again, ranks, range(4, 5))
    weights = {key: value.clone() for key, value in again.weights()}
    if name in HANDED_ON:
        again.save_policy(out / name / "policy", load_tokenizer(ModelConfig(path=model)))
    again.close()
    if ranks.rank == 0:
        torch.save({**found, "weights": weights}, out / f"{name}.pt")
    ranks.barrier()


RESUMED = {"zero0", "zero1", "zero2", "zero3", "zero3_bf16"}
"""Cases whose third step is made by a second learner from the first one's saved state."""
HANDED_ON = {"zero3", "zero3_lora", "zero3_bf16"}
"""Cases that write their policy too."""

if __name__ == "__main__":
    settle_libraries()
    joined = join_ranks(1)
    for case in sys.argv[3:] or CASES:
        run(case, sys.argv[1], Path(sys.argv[2]), joined)
        gc.freeze()  # DeepSpeed collects at every start, which goes through all that was imported
