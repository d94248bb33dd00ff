"""Run by torch's launcher on two ranks: each its own engine, then one engine that both share. Prints OK on rank 0."""

import sys

import torch
import torch.distributed as dist
from ampo_plugins.rollouts.vllm.spec import VllmRollout
from ampo_registry import BuildContext
from transformers import AutoModelForCausalLM, AutoTokenizer

from ampo_core.distributed.ranks import Ranks, join_ranks
from tests.plugins.vllm.conftest import requests, sampling
from tests.plugins.vllm.parity import disturb, largest_gap, named, tokens


def check(ranks: Ranks, folder: str, tensor_parallel: int) -> list[list[tuple[int, ...]]]:
    """Samples before and after a sync, as the core asks for them; returns the tokens after it, on every rank."""
    context = BuildContext(
        model_path=folder,
        tokenizer=AutoTokenizer.from_pretrained(folder),
        rank=ranks.rank,
        world_size=ranks.world_size,
        seed=5,
    )
    engine = VllmRollout(kv_cache_gib=0.25, tensor_parallel=tensor_parallel).build(context)
    policy = AutoModelForCausalLM.from_pretrained(folder)
    asked = requests(2)
    engine.wake()
    groups = ranks.map(lambda share: engine.generate(share, sampling(limit=20)), asked)
    assert largest_gap(policy, asked, groups) < 1e-4
    engine.sleep()
    disturb(policy, 3)
    engine.load_weights(named(policy), 1)
    engine.wake()
    lone = asked[:1] if ranks.rank == 0 else []  # rank 1 has nothing to ask for, and takes part all the same
    [first] = engine.generate(lone, sampling(limit=20)) or [None]
    assert (first is None) == (ranks.rank == 1)
    groups = ranks.map(lambda share: engine.generate(share, sampling(limit=20)), asked)
    assert largest_gap(policy, asked, groups) < 1e-4
    assert {rollout.policy_version for group in groups for rollout in group} == {1}
    assert first is None or tokens([first]) == tokens(groups[:1])
    engine.close()
    assert dist.is_initialized()
    assert ranks.sum(torch.ones(1)).item() == 2
    return tokens(groups)


def main() -> None:
    """Two engines of one rank each, then one of two ranks: the same samples, for the seeds are the same."""
    ranks = join_ranks(1)
    folder = sys.argv[1]
    apart, together = check(ranks, folder, 1), check(ranks, folder, 2)
    assert ranks.each(apart) == [apart, apart]
    assert apart == together
    if ranks.rank == 0:
        print("OK")


if __name__ == "__main__":
    main()
