"""The `vllm` rollout, for real, in this process."""

import random

import numpy as np
import pytest
import torch
from ampo_plugins.rollouts.vllm import VllmRollout
from ampo_registry import BuildContext, ConfigError, RolloutRequest, RunError
from ampo_registry.testing import check_rollout
from transformers import AutoModelForCausalLM

from tests.vllm.conftest import PROMPTS, needs_vllm, requests, sampling

pytestmark = needs_vllm


def full_forward_logprobs(model, prompt, response, temperature=1.0):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return (logits.float() / temperature).log_softmax(-1).gather(-1, torch.tensor(response).unsqueeze(-1)).squeeze(-1)


def largest_gap(model, asked, groups, temperature=1.0):
    return max(
        float(
            (
                full_forward_logprobs(model, request.prompt_token_ids, r.token_ids, temperature)
                - torch.tensor(r.logprobs)
            )
            .abs()
            .max()
        )
        for request, group in zip(asked, groups, strict=True)
        for r in group
    )


def test_logprobs(engine, tied_model):
    model = AutoModelForCausalLM.from_pretrained(tied_model)
    groups = engine.generate(requests(), sampling(0.7, limit=40))
    assert largest_gap(model, requests(), groups, 0.7) < 1e-4
