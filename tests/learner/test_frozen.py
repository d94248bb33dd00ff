"""Judges of the learner's own code: with the same weights they give the same bits; `start` needs no second copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ampo_registry import ConfigError, JudgeRequest

from ampo_core.config.tree import DeepSpeedConfig, LoraConfig, ModelConfig, OptimizerConfig
from ampo_core.distributed.ranks import join_ranks
from ampo_core.learner.frozen import FrozenModel
from ampo_core.learner.learner import Learner
from ampo_core.learner.packing import TokenPair
from ampo_core.loop.judges import Judges

pytestmark = pytest.mark.process
REQUESTS = [JudgeRequest((1, 2, 3), tuple(range(4, 4 + n))) for n in (3, 9, 1, 6, 2)]  # type: ignore[arg-type]


def learner_of(folder: Path, *, lora: LoraConfig | None = None) -> Learner:
    return Learner(
        ModelConfig(path=str(folder), dtype="float32", gradient_checkpointing=False, lora=lora),
        OptimizerConfig(tokens_per_microbatch=64, learning_rate=1e-2),
        DeepSpeedConfig(zero_stage=0),
        join_ranks(),
        reference=True,
    )


def frozen(folder: Path, tokens: int = 64) -> FrozenModel:
    return FrozenModel(str(folder), "float32", torch.device("cpu"), tokens, key="judges.other.path")


def judges_of(learner: Learner, folder: Path) -> Judges:
    return Judges(learner, {"other": frozen(folder)}, declared=["other"], temperature=0.8, most=99)


def train(learner: Learner) -> None:
    pairs = [TokenPair(request.prompt_token_ids, request.token_ids) for request in REQUESTS]

    def loss(indices: Any, log_probs: Any, entropies: Any) -> torch.Tensor:
        return -torch.cat(log_probs).sum() / 21

    for _ in range(3):
        learner.update(pairs, loss, learning_rate=1e-2, temperature=1.0, entropy=False)


def test_judges_with_the_same_weights_give_the_same_bits(tiny_model: Path) -> None:
    learner = learner_of(tiny_model)
    judges = judges_of(learner, tiny_model)
    for temperature in (None, 1.0, 1.3):
        start, policy, other = (
            judges.judge(name).logprobs(REQUESTS, temperature) for name in ("start", "policy", "other")
        )
        assert start == policy == other
    train(learner)
    assert judges.judge("start").logprobs(REQUESTS) == judges.judge("other").logprobs(REQUESTS)
    assert judges.judge("policy").logprobs(REQUESTS) != judges.judge("other").logprobs(REQUESTS)
    learner.close()


def test_with_adapters_start_is_the_policy_without_them_and_no_second_copy(tiny_model: Path) -> None:
    learner = learner_of(tiny_model, lora=LoraConfig(rank=4, target_modules=["q_proj", "v_proj"]))
    judges = judges_of(learner, tiny_model)
    before = judges.judge("other").logprobs(REQUESTS)
    train(learner)
    assert judges.judge("start").logprobs(REQUESTS) == before
    assert judges.judge("policy").logprobs(REQUESTS) != before
    models = [value for value in vars(learner).values() if isinstance(value, torch.nn.Module)]
    owners = {id(next(model.parameters())) for model in models}
    assert len(owners) == 1
    learner.close()


def test_micro_batches_and_order_change_a_frozen_models_log_probs_in_the_last_bits_only(tiny_model: Path) -> None:
    whole = frozen(tiny_model, 1024).logprobs(REQUESTS, 0.7)
    for tokens in (12, 25):
        turned = frozen(tiny_model, tokens).logprobs(REQUESTS[::-1], 0.7)[::-1]
        assert max(abs(a - b) for x, y in zip(whole, turned, strict=True) for a, b in zip(x, y, strict=True)) < 1e-5


def test_a_model_that_cannot_be_loaded_is_named_by_its_judge(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^judges\.other\.path: no model could be loaded from"):
        frozen(tmp_path)
