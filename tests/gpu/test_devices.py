"""Forward, loss and backward on PyTorch's `meta` device: a tensor that was left on the CPU is an error there, as it
would be on a GPU."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from ampo_registry import BuildContext, StepContext
from ampo_registry.discovery import discover

from ampo_core.config.jobs import TrainJob
from ampo_core.config.load import load_config
from ampo_core.config.tree import ModelConfig
from ampo_core.learner.packing import TokenPair
from ampo_core.learner.policy import Policy, load_policy
from ampo_core.loop.minibatch_loss import MiniBatchLoss
from ampo_core.loop.objective import Objective, ObjectiveParts
from ampo_core.loop.sequences import TrainSequence

LENGTHS = ((5, 40), (12, 3), (7, 90), (30, 17))
OPTIONS = {
    "objective.kl.coefficient": 0.1,
    "objective.on_policy.loss.dual": 3.0,
    "objective.on_policy.importance_cap": 2.0,
    "objective.off_policy.loss.clip": [0.1, 0.1],
    "objective.off_policy.loss.behaviour_policy": "recorded",
}
META = torch.device("meta")


@pytest.fixture(scope="module")
def pairs() -> list[TokenPair]:
    random = Random(0)
    draw = [tuple(tuple(random.randrange(3, 300) for _ in range(n)) for n in pair) for pair in LENGTHS]
    return [TokenPair(prompt, response) for prompt, response in draw]


@pytest.fixture(scope="module")
def objective(tmp_path_factory: pytest.TempPathFactory) -> Objective:
    path = tmp_path_factory.mktemp("meta") / "train.yaml"
    path.write_text("job: train\nmodel: {path: m}\ndata: {train: [x.jsonl]}\n", encoding="utf-8")
    job = load_config(path, OPTIONS, discover()).job
    assert isinstance(job, TrainJob)
    return ObjectiveParts(job.objective, BuildContext(), 256).at(StepContext(step=1))


def policy_elsewhere(folder: Path, dtype: str) -> Policy:
    config = ModelConfig.model_validate({"path": str(folder), "dtype": dtype, "gradient_checkpointing": True})
    policy: Policy = load_policy(config).to(META)
    return policy.train()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_nothing_of_an_update_is_left_on_the_cpu(
    dtype, tied, first, pairs, objective, tiny_model, tiny_untied_model, monkeypatch
):
    # on `meta` no value can be read, as while PyTorch traces a model
    monkeypatch.setattr("transformers.masking_utils.is_tracing", lambda *_: True)
    policy = policy_elsewhere(tiny_model if tied else tiny_untied_model, dtype)
    log_probs, entropies = policy(pairs, 0.9, True)
    assert {log_probs.device, entropies.device} == {META}
    sizes = [response for _, response in LENGTHS]
    parts, more = list(torch.split(log_probs, sizes)), list(torch.split(entropies, sizes))
    # even ones are rollouts, odd ones teachers' answers; what was recorded comes from the CPU
    sequences = [
        TrainSequence(
            pair,
            group=i // 2,
            advantage=(-1.0) ** i,
            spans=(("off_policy" if i % 2 else "on_policy", 0, sizes[i]),),
            old_log_probs=None if i % 2 or first else parts[i].detach(),
            rollout_log_probs=None if i % 2 else torch.zeros(sizes[i]),
            behaviour_log_probs=torch.zeros(sizes[i]) if i % 2 else None,
            reference_log_probs=None if i % 2 else parts[i].detach(),
        )
        for i, pair in enumerate(pairs)
    ]
    loss = MiniBatchLoss(objective, sequences, range(len(pairs)), first=first)
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "repeat_interleave", repeated)
        total = loss(list(range(len(pairs))), parts, more)
    assert total.device == META
    total.backward()
    # moving to `meta` makes a copy for each name of a shared parameter: these are the ones that were used
    used = [*policy.plain.base_model.parameters(), *policy.head.parameters()]
    gradients = [parameter.grad for parameter in used]
    assert all(gradient is not None and gradient.device == META for gradient in gradients)


def repeated(values: torch.Tensor, lengths: torch.Tensor, **options: object) -> torch.Tensor:
    """What `repeat_interleave` returns, without its values: on `meta` nothing knows the lengths."""
    assert values.device == lengths.device == META
    rollouts, teachers = (sum(response for _, response in LENGTHS[start::2]) for start in (0, 1))
    repeated.calls += 1  # type: ignore[attr-defined]
    # the weights of the rollouts come first, then those of the teachers
    return values.new_empty(rollouts if repeated.calls % 2 else teachers)  # type: ignore[attr-defined]


repeated.calls = 0  # type: ignore[attr-defined]
