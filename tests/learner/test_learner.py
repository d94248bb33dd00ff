"""The learner with a real DeepSpeed engine in one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ampo_registry import ConfigError, RunError

from ampo_core.config.tree import DeepSpeedConfig, LoraConfig, ModelConfig, OptimizerConfig
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import join_ranks
from ampo_core.learner.learner import Learner, UpdateReport
from ampo_core.learner.packing import TokenPair

pytestmark = pytest.mark.process

PAIRS = [TokenPair((1, 2, 3), tuple(range(4, 4 + n))) for n in (3, 9, 1, 6, 2)]


def learner_of(folder: Path, *, lora: LoraConfig | None = None, reference: bool = False, **options: Any) -> Learner:
    return Learner(
        ModelConfig(path=str(folder), dtype="float32", gradient_checkpointing=lora is not None, lora=lora),
        OptimizerConfig(**{"tokens_per_microbatch": 64, "learning_rate": 1e-2, **options}),
        DeepSpeedConfig(zero_stage=0),
        join_ranks(),
        reference=reference,
    )


def update(learner: Learner, pairs: list[TokenPair], loss: Any, **named: Any) -> UpdateReport:
    rate = learner.optimizer.learning_rate
    return learner.update(pairs, loss, learning_rate=rate, temperature=1.0, entropy=False, **named)


def token_mean(pairs: list[TokenPair]) -> Any:
    tokens = sum(len(pair.response_token_ids) for pair in pairs)
    return lambda indices, log_probs, entropies: -torch.cat(log_probs).sum() / tokens


def plain_gradients(folder: Path) -> tuple[float, dict[str, torch.Tensor]]:
    """Norm and gradients of the token-mean loss, with transformers and autograd alone."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = sum(len(pair.response_token_ids) for pair in PAIRS)
    loss = torch.zeros(())
    for pair in PAIRS:
        ids = torch.tensor([pair.prompt_token_ids + pair.response_token_ids])
        log_probs = model(ids).logits.log_softmax(-1)[0, len(pair.prompt_token_ids) - 1 : -1]
        loss = loss - log_probs.gather(-1, ids[0, len(pair.prompt_token_ids) :, None]).sum() / tokens
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    return float(torch.stack([g.norm() for g in grads.values()]).norm()), grads


@pytest.mark.parametrize("tokens", [12, 24, 4096])
def test_the_gradient_is_the_plain_one_however_it_is_split(tiny_model: Path, tokens: int) -> None:
    norm, _ = plain_gradients(tiny_model)
    learner = learner_of(tiny_model, tokens_per_microbatch=tokens)
    report = update(learner, PAIRS, token_mean(PAIRS))
    learner.close()
    assert report.grad_norm == pytest.approx(norm, rel=1e-5)
    assert report.tokens == sum(len(pair) for pair in PAIRS)


def test_split_and_order_leave_the_same_weights(tiny_model: Path) -> None:
    results = []
    for tokens, pairs in ((12, PAIRS), (4096, PAIRS[::-1])):
        learner = learner_of(tiny_model, tokens_per_microbatch=tokens, grad_clip=0.1, learning_rate=1e-3)
        for _ in range(3):
            update(learner, pairs, token_mean(pairs))
        results.append({name: value.clone() for name, value in learner.weights()})
        learner.close()
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-4, atol=2e-5)


def test_a_non_finite_gradient_is_skipped_and_several_in_a_row_stop_the_run(tiny_model: Path) -> None:
    learner = learner_of(tiny_model, max_skipped_steps=2)
    before = {name: value.clone() for name, value in learner.weights()}

    def broken(indices: list[int], log_probs: list[torch.Tensor], entropies: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(log_probs).sum() * float("nan")

    report = update(learner, PAIRS, broken)
    assert report.skipped
    assert all(torch.equal(value, before[name]) for name, value in learner.weights())
    assert not update(learner, PAIRS, token_mean(PAIRS)).skipped
    update(learner, PAIRS, broken)
    with pytest.raises(RunError, match="not finite in 2 updates in a row: the weights have diverged, or"):
        update(learner, PAIRS, broken)
    with pytest.raises(RunError, match=r"not finite in 3 updates in a row: loss odd gave nan\. Look at"):
        update(learner, PAIRS, broken, explain=lambda: "loss odd gave nan")
    learner.close()


def test_a_learning_rate_beyond_float32_says_so(tiny_model: Path) -> None:
    learner = learner_of(tiny_model, learning_rate=1e38)
    with pytest.raises(RunError, match=r"a step at the learning rate 1e\+38 is larger than any number of float32"):
        update(learner, PAIRS, token_mean(PAIRS))
    learner.close()


def test_weights_that_are_not_finite_are_not_written(tiny_model: Path, golden_tokenizer: Any, tmp_path: Path) -> None:
    learner = learner_of(tiny_model)
    with torch.no_grad():
        next(learner.policy.plain.model.layers[0].parameters())[0, 0] = float("inf")
    with pytest.raises(RunError, match=r"the weights model\.layers\.0\..* are not finite: the policy has diverged"):
        learner.save_policy(tmp_path / "policy", PromptTokenizer(golden_tokenizer, ModelConfig(path=str(tmp_path))))
    assert not (tmp_path / "policy").exists()
    learner.close()


def test_an_empty_update_changes_no_weight(tiny_model: Path) -> None:
    learner = learner_of(tiny_model)
    before = {name: value.clone() for name, value in learner.weights()}
    report = update(learner, [], token_mean(PAIRS))
    assert (report.grad_norm, report.skipped, report.tokens) == (0.0, False, 0)
    assert all(torch.equal(value, before[name]) for name, value in learner.weights())
    learner.close()


def test_with_lora_the_reference_is_the_model_beneath_and_no_copy(tiny_model: Path) -> None:
    learner = learner_of(tiny_model, lora=LoraConfig(rank=4), reference=True)
    start = learner.logprobs(PAIRS, temperature=1.0)
    for _ in range(2):
        update(learner, PAIRS, token_mean(PAIRS))
        assert_reference_is(start, learner)
    plain = learner_of(tiny_model)
    whole = sum(parameter.numel() for parameter in plain.policy.parameters())
    held = [value for value in vars(learner).values() if isinstance(value, torch.nn.Module)]
    assert sum(p.numel() for module in held for p in module.parameters()) < 1.5 * whole
    learner.close()
    plain.close()


def assert_reference_is(start: list[torch.Tensor], learner: Learner) -> None:
    """Its reference gives the log-probs `start`, to the bit, and its policy others."""
    references = learner.logprobs(PAIRS, temperature=1.0, reference=True)
    for before, reference, now in zip(start, references, learner.logprobs(PAIRS, temperature=1.0), strict=True):
        assert torch.equal(before, reference)
        assert not torch.equal(before, now)


def test_the_reference_stays_the_start_model(tiny_model: Path) -> None:
    learner = learner_of(tiny_model, reference=True)
    start = learner.logprobs(PAIRS, temperature=1.0)
    update(learner, PAIRS, token_mean(PAIRS))
    assert_reference_is(start, learner)
    learner.close()
    without = learner_of(tiny_model)
    with pytest.raises(RunError, match="without a reference"):
        without.logprobs(PAIRS, temperature=1.0, reference=True)
    without.close()


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("model", ["tiny_model", "tiny_untied_model"])
def test_a_saved_policy_opens_in_transformers_with_the_same_log_probs(
    model: str, lora: LoraConfig | None, tmp_path: Path, request: pytest.FixtureRequest, golden_tokenizer: Any
) -> None:
    from transformers import AutoModelForCausalLM

    learner = learner_of(request.getfixturevalue(model), lora=lora)
    for _ in range(3):
        update(learner, PAIRS, token_mean(PAIRS))
    log_probs = learner.logprobs(PAIRS, temperature=1.0)
    names = [name for name, _ in learner.weights()]
    learner.save_policy(tmp_path, PromptTokenizer(golden_tokenizer, ModelConfig(path=str(tmp_path))))
    learner.close()
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert names == [name for name, _ in opened.named_parameters(remove_duplicate=False)]
    for pair, wanted in zip(PAIRS, log_probs, strict=True):
        ids = torch.tensor([pair.prompt_token_ids + pair.response_token_ids])
        with torch.no_grad():
            found = opened(ids).logits.log_softmax(-1)[0, 2:-1].gather(-1, ids[0, 3:, None])[:, 0]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_model_that_changes_its_logits_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "capped")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "final_logit_softcapping": 30.0}))
    with pytest.raises(ConfigError, match="final_logit_softcapping = 30"):
        learner_of(folder)


def test_the_checkpoint_s_dropout_is_off_in_training(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "dropping")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.5}))
    norms = set()
    for source in (tiny_model, folder):
        learner = learner_of(source)
        norms.add(update(learner, PAIRS, token_mean(PAIRS)).grad_norm)
        learner.close()
    assert len(norms) == 1


def test_a_model_that_drops_in_its_own_way_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

    forward = Qwen2MLP.forward

    def dropping(self: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(forward(self, x), 0.1, self.training)

    monkeypatch.setattr(Qwen2MLP, "forward", dropping)
    state = torch.get_rng_state()
    with pytest.raises(
        ConfigError, match=r"other log-probs in training than in evaluation, by up to .*Look at .*Qwen2MLP "
    ):
        learner_of(tiny_model)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_state_of_release_0_1_loads(tiny_model: Path, tmp_path: Path) -> None:
    learner = learner_of(tiny_model)
    update(learner, PAIRS, token_mean(PAIRS))
    kept = {name: value.clone() for name, value in learner.weights()}
    progress = {"steps": 7, "skipped_in_a_row": 1}
    learner._engine.save_checkpoint(str(tmp_path), tag="state", client_state=progress, save_latest=False)
    update(learner, PAIRS, token_mean(PAIRS))
    learner.load_state(tmp_path)
    assert learner.skipped_in_a_row == 1
    assert all(torch.equal(value, kept[name]) for name, value in learner.weights())
    learner.close()
