"""The `transformers` rollout, for real, on a random Qwen2."""

import math
from dataclasses import replace

import pytest
import torch
from ampo_plugins.rollouts.transformers.spec import TransformersRollout
from ampo_registry import BuildContext, ConfigError, RolloutRequest, RunError, SamplingOptions

PROMPTS = ((5, 9, 33), (17,), (5, 9, 33), tuple(range(40, 61)), (8, 8))


def build(folder, tokenizer, **options):
    return TransformersRollout(**options).build(BuildContext(model_path=str(folder), tokenizer=tokenizer))


@pytest.fixture
def engine(tiny_model, golden_tokenizer):
    return build(tiny_model, golden_tokenizer)


def options(temperature=1.0, top_p=1.0, limit=12, stops=()):
    return SamplingOptions(temperature, top_p, limit, tuple(stops))


def requests(group=3):
    return [RolloutRequest(prompt, tuple(100 * at + i for i in range(group))) for at, prompt in enumerate(PROMPTS)]


def full_forward_logprobs(model, prompt, response, temperature):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return (logits.float() / temperature).log_softmax(-1).gather(-1, torch.tensor(response).unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("stop_share", [0, 40])
def test_logprobs_are_those_of_a_plain_full_forward(engine, temperature, stop_share):
    vocabulary = engine.model.config.vocab_size
    stops = range(0, vocabulary, vocabulary // stop_share) if stop_share else ()
    groups = engine.generate(requests(4), options(temperature, limit=20, stops=stops))
    lengths = set()
    for request, group in zip(requests(4), groups, strict=True):
        assert len(group) == 4
        for rollout in group:
            lengths.add(len(rollout.token_ids))
            expected = full_forward_logprobs(engine.model, request.prompt_token_ids, rollout.token_ids, temperature)
            torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=1e-5, rtol=0)
    assert (len(lengths) > 3) == bool(stop_share)  # with stops rows do finish early and are dropped


def test_temperature_0_is_greedy_with_log_probs_at_temperature_1(engine):
    groups = engine.generate(requests(2), options(0.0, top_p=0.3))
    for request, (first, second) in zip(requests(2), groups, strict=True):
        assert replace(second, logprobs=first.logprobs) == first
        assert second.logprobs == pytest.approx(first.logprobs, abs=1e-5)  # another row of the batch rounds differently
        with torch.no_grad():
            whole = engine.model(input_ids=torch.tensor([request.prompt_token_ids + first.token_ids])).logits[0]
        assert whole[len(request.prompt_token_ids) - 1 : -1].argmax(-1).tolist() == list(first.token_ids)
        expected = full_forward_logprobs(engine.model, request.prompt_token_ids, first.token_ids, 1.0)
        torch.testing.assert_close(torch.tensor(first.logprobs), expected, atol=1e-5, rtol=0)


def test_same_seeds_same_responses_other_seeds_other_responses(engine):
    first = engine.generate(requests(), options())
    assert engine.generate(requests(), options()) == first
    assert first[0] != first[2]  # same prompt, other seeds
    assert len({rollout.token_ids for group in first for rollout in group}) == 15


def test_a_sample_does_not_depend_on_its_batch_mates(engine, tiny_model, golden_tokenizer):
    together = engine.generate(requests(), options(limit=16, stops=range(0, 500, 25)))
    narrow = build(tiny_model, golden_tokenizer, max_batch_sequences=2)
    for at, request in enumerate(requests()):
        for i, seed in enumerate(request.seeds):
            alone = narrow.generate(
                [RolloutRequest(request.prompt_token_ids, (seed,))], options(limit=16, stops=range(0, 500, 25))
            )
            assert alone[0][0].token_ids == together[at][i].token_ids
    again = narrow.generate(requests(), options(limit=16, stops=range(0, 500, 25)))
    assert [[r.token_ids for r in group] for group in again] == [[r.token_ids for r in group] for group in together]


def test_stop_and_length(engine, golden_tokenizer):
    free = engine.generate(requests(1), options(limit=6))
    for rollout in (group[0] for group in free):
        assert (rollout.finish_reason, len(rollout.token_ids), len(rollout.logprobs)) == ("length", 6, 6)
    third = free[0][0].token_ids[2]
    assert third not in free[0][0].token_ids[:2]
    stopped = engine.generate(requests(1), options(limit=6, stops=[third]))[0][0]
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == free[0][0].token_ids[:3]
    assert stopped.text == golden_tokenizer.decode(stopped.token_ids[:2], skip_special_tokens=True)
    last = free[0][0].token_ids[5]
    at_limit = engine.generate(requests(1), options(limit=6, stops=[last]))[0][0]
    assert at_limit.finish_reason == "stop"


def test_text_has_no_special_tokens(engine, golden_tokenizer):
    with torch.no_grad():
        engine.model.lm_head.weight.mul_(0)  # every token equally likely: special ones occur
    rollout = engine.generate([RolloutRequest((3, 4), (1,))], options(limit=400))[0][0]
    special = set(golden_tokenizer.all_special_ids)
    assert special & set(rollout.token_ids)
    assert not any(token in rollout.text for token in golden_tokenizer.all_special_tokens)


def test_top_p_logprobs_are_renormalised_over_the_nucleus(engine):
    request = RolloutRequest(PROMPTS[0], tuple(range(200)))
    group = engine.generate([request], options(top_p=0.3, limit=1))[0]
    with torch.no_grad():
        probabilities = engine.model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    ordered, order = probabilities.sort(descending=True)
    size = int((ordered.cumsum(0) < 0.3).sum()) + 1
    nucleus = {int(token): float(ordered[i] / ordered[:size].sum()) for i, token in enumerate(order[:size])}
    assert size > 1
    assert {rollout.token_ids[0] for rollout in group} <= set(nucleus)
    for rollout in group:
        assert torch.tensor(rollout.logprobs[0]).exp().item() == pytest.approx(nucleus[rollout.token_ids[0]], abs=1e-5)


def test_batches_keep_both_caps(tiny_model, golden_tokenizer, monkeypatch):
    from ampo_plugins.rollouts.transformers import engine as transformers_engine

    sizes = []
    real = transformers_engine.decode

    def spy(model, rows, chosen):
        sizes.append((len(rows), max(len(row.prompt) for row in rows)))
        return real(model, rows, chosen)

    monkeypatch.setattr(transformers_engine, "decode", spy)
    engine = build(tiny_model, golden_tokenizer, max_batch_sequences=6, max_batch_tokens=60)
    groups = engine.generate(requests(), options(limit=8))
    assert [len(group) for group in groups] == [3] * 5
    assert all(count <= 6 and count * (width + 8) <= 60 for count, width in sizes)
    tight = build(tiny_model, golden_tokenizer, max_batch_tokens=1)
    assert [len(group) for group in tight.generate(requests(1), options(limit=2))] == [1] * 5


def test_a_request_may_have_a_limit_of_its_own(tiny_model, golden_tokenizer, monkeypatch):
    from ampo_plugins.rollouts.transformers import engine as transformers_engine

    engine = build(tiny_model, golden_tokenizer, max_batch_tokens=150)
    limits = (3, None, 1, 7, 99)
    free = engine.generate(requests(), options(stops=range(0, 500, 25)))
    asked = [replace(request, max_response_tokens=own) for request, own in zip(requests(), limits, strict=True)]
    real, sizes = transformers_engine.decode, []

    def spy(model, rows, chosen):
        sizes.append(len(rows) * (max(len(row.prompt) for row in rows) + max(row.limit for row in rows)))
        return real(model, rows, chosen)

    monkeypatch.setattr(transformers_engine, "decode", spy)
    for own, group, whole in zip(limits, engine.generate(asked, options(stops=range(0, 500, 25))), free, strict=True):
        for rollout, uncut in zip(group, whole, strict=True):
            assert rollout.token_ids == uncut.token_ids[:own]
            assert len(rollout.logprobs) == len(rollout.token_ids)
            stopped = len(uncut.token_ids) <= (own or 12) and uncut.finish_reason == "stop"
            assert rollout.finish_reason == ("stop" if stopped else "length")
    assert max(sizes) <= 150


@pytest.mark.parametrize("fixture", ["tiny_model", "tiny_untied_model"])
def test_load_weights_changes_what_is_sampled(request, golden_tokenizer, fixture):
    from transformers import AutoModelForCausalLM

    folder = request.getfixturevalue(fixture)
    engine = build(folder, golden_tokenizer)
    before = engine.generate(requests(), options())
    assert before[0][0].policy_version == 0
    policy = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    engine.load_weights(policy.named_parameters(), 4)
    after = engine.generate(requests(), options())
    assert after[0][0].policy_version == 4
    assert after != before
    for asked, group in zip(requests(), after, strict=True):
        for rollout in group:
            expected = full_forward_logprobs(policy, asked.prompt_token_ids, rollout.token_ids, 1.0)
            torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=1e-5, rtol=0)


def test_load_weights_copies(engine):
    name, source = next((n, p.detach().clone()) for n, p in engine.model.named_parameters())
    others = [(n, p.detach().clone()) for n, p in engine.model.named_parameters() if n != name]
    engine.load_weights([(name, source), *others], 1)
    source.zero_()
    assert dict(engine.model.named_parameters())[name].abs().sum() > 0


def test_tied_heads_may_come_under_both_names_but_not_with_two_values(engine):
    weights = {name: p.detach().clone() for name, p in engine.model.state_dict().items()}
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= set(weights)
    engine.load_weights(weights.items(), 1)
    engine.load_weights(((n, p) for n, p in weights.items() if n != "model.embed_tokens.weight"), 2)
    with pytest.raises(RunError, match="tied"):
        engine.load_weights({**weights, "lm_head.weight": weights["lm_head.weight"] + 1}.items(), 3)


def test_weights_that_are_no_numbers_are_not_called_two_values(engine):
    head = engine.model.lm_head.weight
    broken = torch.full_like(head, math.nan)
    weights = {**dict(engine.model.named_parameters()), "lm_head.weight": broken, "model.embed_tokens.weight": broken}
    engine.load_weights(weights.items(), 1)
    assert engine.policy_version == 1


def test_incomplete_or_foreign_weights_are_errors(tiny_untied_model, golden_tokenizer):
    engine = build(tiny_untied_model, golden_tokenizer)
    weights = {name: p.detach().clone() for name, p in engine.model.named_parameters()}
    with pytest.raises(RunError, match=r"1 parameters did not come, first lm_head\.weight"):
        engine.load_weights(((n, p) for n, p in weights.items() if n != "lm_head.weight"), 1)
    with pytest.raises(RunError, match=r"no lm_head\.weigth; nearest: lm_head\.weight"):
        engine.load_weights([("lm_head.weigth", weights["lm_head.weight"])], 1)
    with pytest.raises(RunError, match=r"is \(3, 3\)"):
        engine.load_weights([("lm_head.weight", torch.zeros(3, 3))], 1)
    assert engine.policy_version == 0


def test_sleep_wake_close(engine):
    before = engine.generate(requests(1), options())
    engine.sleep()
    engine.wake()
    assert engine.generate(requests(1), options()) == before
    engine.close()


def test_a_missing_model_is_a_config_error(tmp_path, golden_tokenizer):
    with pytest.raises(ConfigError, match="no model could be loaded"):
        build(tmp_path, golden_tokenizer)
    with pytest.raises(ConfigError, match="model path"):
        TransformersRollout().build(BuildContext())


def test_the_model_is_float32_on_a_cpu_whatever_the_checkpoint(tiny_model, golden_tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(tmp_path)
    if not torch.cuda.is_available():
        assert build(tmp_path, golden_tokenizer).model.dtype == torch.float32
    assert build(tmp_path, golden_tokenizer, dtype="bfloat16").model.dtype == torch.bfloat16


def test_it_is_always_available():
    assert TransformersRollout().unavailable() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="the attention of the CPU")
def test_grouped_attention_is_in_use_and_is_sdpa(tiny_model, golden_tokenizer):
    from transformers import AutoModelForCausalLM

    ours = build(tiny_model, golden_tokenizer).model
    theirs = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="sdpa")
    assert ours.config._attn_implementation == "ampo_cpu_sdpa"
    assert theirs.config.num_key_value_heads < theirs.config.num_attention_heads
    ids = torch.arange(24).reshape(2, 12)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    for chosen in (mask, None):
        with torch.no_grad():
            found, expected = (model(input_ids=ids, attention_mask=chosen).logits for model in (ours, theirs))
        torch.testing.assert_close(found[:, 5:], expected[:, 5:], atol=1e-5, rtol=0)
