"""A Hugging Face model as the trainer: its log-probs beside the sampler's."""

import torch
from transformers import AutoModelForCausalLM

from tests.plugins.vllm.conftest import requests, sampling


def full_forward_logprobs(model, prompt, response, temperature=1.0):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return (logits.float() / temperature).log_softmax(-1).gather(-1, torch.tensor(response).unsqueeze(-1)).squeeze(-1)


def largest_gap(model, asked, groups, temperature=1.0):
    gaps = [
        full_forward_logprobs(model, request.prompt_token_ids, rollout.token_ids, temperature)
        - torch.tensor(rollout.logprobs)
        for request, group in zip(asked, groups, strict=True)
        for rollout in group
    ]
    return float(torch.cat(gaps).abs().max())


def disturb(model, seed):
    """Move every parameter, norms and biases too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def named(model):
    """As the learner streams them: one at a time, tied ones under each of their names."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        yield name, parameter.detach().clone()


def tokens(groups):
    return [[rollout.token_ids for rollout in group] for group in groups]


def check_parity(engine, folder):
    policy = AutoModelForCausalLM.from_pretrained(folder)
    assert largest_gap(policy, requests(4), engine.generate(requests(4), sampling(limit=40))) < 1e-4
    seen = set()
    for version in (1, 2, 3):
        disturb(policy, version)
        engine.sleep()
        engine.load_weights(named(policy), version)
        engine.wake()
        groups = engine.generate(requests(4), sampling(0.6, limit=40))
        assert largest_gap(policy, requests(4), groups, 0.6) < 1e-4
        assert {rollout.policy_version for group in groups for rollout in group} == {version}
        seen.add(str(tokens(groups)))
    assert len(seen) == 3
