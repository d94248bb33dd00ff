"""Sample, change the weights, sync, sample again, with vLLM; prints how far its log-probs are from the model's.

python run_sync.py MODEL
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from ampo_plugins.rollouts.vllm.spec import VllmRollout
from ampo_registry import BuildContext, Rollout, RolloutRequest, SamplingOptions
from transformers import AutoModelForCausalLM, AutoTokenizer

from ampo_core.distributed.ranks import join_ranks

PROMPTS = ((5, 6, 7), (8, 9, 10, 11, 12, 13))


def main(path: str) -> None:
    device = join_ranks().device
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).to(device)
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    spec = VllmRollout(
        enforce_eager=True, gpu_memory_utilization=0.2, kv_cache_gib=1.0, max_model_len=128, dtype="bfloat16"
    )
    engine = spec.build(BuildContext(model_path=path, tokenizer=tokenizer))
    options = SamplingOptions(1.0, 1.0, 64, (2,))
    requests = [RolloutRequest(prompt, tuple(range(8))) for prompt in PROMPTS]
    engine.wake()
    first = engine.generate(requests, options)
    awake = _taken()
    engine.sleep()
    asleep = _taken()
    gaps = [_gap(model, first)]
    with torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    gaps.append(_gap(model, first))
    engine.load_weights(model.named_parameters(remove_duplicate=False), policy_version=1)
    engine.wake()
    second = engine.generate(requests, options)
    gaps.append(_gap(model, second))
    versions = {rollout.policy_version for group in second for rollout in group}
    print(json.dumps({"gaps": gaps, "versions": sorted(versions), "freed": awake - asleep}))
    engine.close()


def _taken() -> int:
    if not torch.cuda.is_available():
        return 0
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return total - free


@torch.no_grad()
def _gap(model: Any, rollouts: list[list[Rollout]]) -> float:
    """Mean |log-prob of the model − log-prob of vLLM|, in nats."""
    gaps = []
    for prompt, group in zip(PROMPTS, rollouts, strict=True):
        for rollout in group:
            ids = torch.tensor([[*prompt, *rollout.token_ids]], device=model.device)
            log_probs = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
            own = log_probs.gather(-1, ids[0, len(prompt) :, None]).squeeze(-1).cpu()
            gaps.append((own - torch.tensor(rollout.logprobs)).abs())
    return float(torch.cat(gaps).mean())


if __name__ == "__main__":
    main(sys.argv[1])
