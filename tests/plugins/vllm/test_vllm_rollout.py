"""The `vllm` rollout, for real, in this process."""

import random
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from ampo_registry import RolloutRequest, RunError
from transformers import AutoModelForCausalLM

from tests.plugins.vllm.conftest import needs_vllm, own_environment, requests, sampling
from tests.plugins.vllm.parity import check_parity, disturb, largest_gap, named, tokens

pytestmark = [needs_vllm, pytest.mark.process]


@pytest.fixture
def restored(engine, tied_model):
    yield engine
    engine.load_weights(named(AutoModelForCausalLM.from_pretrained(tied_model)), 0)


def test_parity_with_the_trainer_over_several_syncs_with_tied_embeddings(restored, tied_model):
    check_parity(restored, tied_model)


def test_temperature_0_is_greedy_with_log_probs_at_temperature_1(engine, tied_model):
    policy = AutoModelForCausalLM.from_pretrained(tied_model)
    groups = engine.generate(requests(2), sampling(0.0, top_p=0.3, limit=20))
    assert all(first.token_ids == second.token_ids for first, second in groups)
    assert largest_gap(policy, requests(2), groups, 1.0) < 1e-4
    for request, (first, _) in zip(requests(2), groups, strict=True):
        with torch.no_grad():
            whole = policy(input_ids=torch.tensor([request.prompt_token_ids + first.token_ids])).logits[0]
        assert whole[len(request.prompt_token_ids) - 1 : -1].argmax(-1).tolist() == list(first.token_ids)


def test_a_tied_head_follows_when_only_the_embedding_is_sent(restored, tied_model):
    policy = AutoModelForCausalLM.from_pretrained(tied_model)
    disturb(policy, 9)
    assert "lm_head.weight" not in dict(policy.named_parameters())
    restored.load_weights(policy.named_parameters(), 1)
    assert largest_gap(policy, requests(), restored.generate(requests(), sampling(limit=20))) < 1e-4


def test_incomplete_or_foreign_weights_are_errors(restored, tied_model):
    weights = dict(named(AutoModelForCausalLM.from_pretrained(tied_model)))
    last = "model.norm.weight"
    with pytest.raises(RunError, match=rf"1 parameters did not come, first {last}"):
        restored.load_weights(((n, p) for n, p in weights.items() if n != last), 1)
    with pytest.raises(RunError, match=r"no model\.norm\.weigth; nearest: model\.norm\.weight"):
        restored.load_weights([("model.norm.weigth", weights[last])], 1)
    with pytest.raises(RunError, match=r"is \(3, 3\)"):
        restored.load_weights([(last, torch.zeros(3, 3))], 1)
    with pytest.raises(RunError, match="tied"):
        restored.load_weights({**weights, "lm_head.weight": weights["lm_head.weight"] + 1}.items(), 1)
    assert restored.policy_version == 0


def test_a_seed_decides_its_sample_whatever_else_is_in_the_batch(engine):
    together = engine.generate(requests(), sampling(limit=16, stops=range(0, 390, 20)))
    assert tokens(engine.generate(requests(), sampling(limit=16, stops=range(0, 390, 20)))) == tokens(together)
    assert together[0] != together[2]  # same prompt, other seeds
    for request, group in zip(requests(), together, strict=True):
        for seed, rollout in zip(request.seeds, group, strict=True):
            asked = RolloutRequest(request.prompt_token_ids, (seed,))
            alone = engine.generate([asked], sampling(limit=16, stops=range(0, 390, 20)))
            assert alone[0][0].token_ids == rollout.token_ids
    large = RolloutRequest((3,), (2**63 - 1, 2**62 + 1, 0))
    assert len({rollout.token_ids for rollout in engine.generate([large], sampling())[0]}) == 3


def test_stop_and_length(engine, golden_tokenizer):
    free = engine.generate(requests(1), sampling(limit=6))
    for rollout in (group[0] for group in free):
        assert (rollout.finish_reason, len(rollout.token_ids), len(rollout.logprobs)) == ("length", 6, 6)
    third = free[0][0].token_ids[2]
    assert third not in free[0][0].token_ids[:2]
    stopped = engine.generate(requests(1), sampling(limit=6, stops=[third]))[0][0]
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == free[0][0].token_ids[:3]
    assert stopped.logprobs == pytest.approx(free[0][0].logprobs[:3], abs=1e-5)
    assert stopped.text == golden_tokenizer.decode(stopped.token_ids[:2], skip_special_tokens=True)
    last = free[0][0].token_ids[5]
    assert engine.generate(requests(1), sampling(limit=6, stops=[last]))[0][0].finish_reason == "stop"


def test_the_models_own_end_token_stops_only_where_it_is_asked_to(restored, golden_tokenizer):
    """With all tokens equally likely some of 1,600 are special ones; none of them shows in the text."""
    policy = AutoModelForCausalLM.from_pretrained(str(restored.llm.llm_engine.vllm_config.model_config.model))
    with torch.no_grad():
        policy.lm_head.weight.mul_(0)
    restored.load_weights(named(policy), 0)
    asked = [RolloutRequest((3, 4), tuple(range(8)))]
    free = restored.generate(asked, sampling(limit=200))[0]
    end = golden_tokenizer.eos_token_id
    assert end in {token for rollout in free for token in rollout.token_ids[:-1]}
    assert {rollout.finish_reason for rollout in free} == {"length"}
    assert not any(special in rollout.text for special in golden_tokenizer.all_special_tokens for rollout in free)
    stopped = restored.generate(asked, sampling(limit=400, stops=[end]))[0]
    assert "stop" in {rollout.finish_reason for rollout in stopped}
    assert all((rollout.token_ids[-1] == end) == (rollout.finish_reason == "stop") for rollout in stopped)


def test_top_p_logprobs_are_renormalised_over_the_nucleus(engine, tied_model):
    model = AutoModelForCausalLM.from_pretrained(tied_model)
    prompt = (5, 9, 33)
    group = engine.generate([RolloutRequest(prompt, tuple(range(100)))], sampling(top_p=0.3, limit=1))[0]
    with torch.no_grad():
        probabilities = model(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1)
    ordered, order = probabilities.sort(descending=True)
    size = int((ordered.cumsum(0) < 0.3).sum()) + 1
    nucleus = {int(token): float(ordered[i] / ordered[:size].sum()) for i, token in enumerate(order[:size])}
    assert {rollout.token_ids[0] for rollout in group} <= set(nucleus)
    for rollout in group:
        assert torch.tensor(rollout.logprobs[0]).exp().item() == pytest.approx(nucleus[rollout.token_ids[0]], abs=1e-5)


def test_a_response_that_could_not_reach_its_limit_is_refused(engine):
    with pytest.raises(
        RunError, match="a prompt of 21 tokens and 500 for the response need more than the engine's 512"
    ):
        engine.generate(requests(), sampling(limit=500))
    assert engine.generate([], sampling(limit=500)) == []
    short = [replace(request, max_response_tokens=2) for request in requests()]
    assert {len(r.token_ids) for group in engine.generate(short, sampling(limit=500)) for r in group} == {2}


def test_a_learner_in_another_thread_keeps_its_random_numbers(engine):
    """As with `rollout.ahead: 1`. The learner's draws are what they are without a sampler, whenever they come."""
    sources = (lambda: torch.rand(1).item(), lambda: float(np.random.rand()), random.random)
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    drawn, filters = [], warnings.filters
    with ThreadPoolExecutor(1) as thread:
        work = thread.submit(lambda: [engine.generate(requests(), sampling(limit=20)) for _ in range(10)])
        while not work.done():
            drawn.append([draw() for draw in sources])
            assert warnings.filters is filters
            time.sleep(0.001)
        assert work.result()[0] == work.result()[-1]
    assert len(drawn) > 20
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    assert drawn == [[draw() for draw in sources] for _ in drawn]


def test_it_leaves_the_process_as_it_was_and_the_screen_quiet(tied_model):
    program = f"""
import random
import numpy as np, torch, torch.distributed as dist
from safetensors.torch import load_file
from transformers import AutoTokenizer
from ampo_core.distributed.ranks import join_ranks
from ampo_plugins.rollouts.vllm.spec import VllmRollout
from ampo_registry import BuildContext, RolloutRequest, SamplingOptions

folder = {str(tied_model)!r}
ranks = join_ranks(1)
torch.manual_seed(1); np.random.seed(1); random.seed(1)
def state():
    return (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(),
            torch.get_num_threads(), torch.set_num_threads, torch.get_default_dtype(), dist.is_initialized())
before = state()
config = {{"data": {{"max_prompt_tokens": 40}}, "rollout": {{"max_response_tokens": 16}},
           "evaluation": {{"max_response_tokens": None}}}}
context = BuildContext(model_path=folder, tokenizer=AutoTokenizer.from_pretrained(folder), config=config)
for _ in range(2):
    engine = VllmRollout(kv_cache_gib=0.25).build(context)
    assert engine.llm.llm_engine.vllm_config.model_config.max_model_len == 56
    engine.generate([RolloutRequest((1, 2), (3, 4))], SamplingOptions(1.0, 1.0, 4, ()))
    engine.load_weights(load_file(folder + "/model.safetensors").items(), 1)
    assert state() == before
    engine.close()
    assert state() == before
assert ranks.sum(torch.ones(1)).item() == 1
print("kept")
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env=own_environment()
    )
    assert found.stdout.splitlines()[-1:] == ["kept"], found.stderr[-3000:]
    assert "%" not in found.stderr  # no progress bars
    assert not any(word in found.stdout + found.stderr for word in ("INFO", "NUMA", "Triton"))
