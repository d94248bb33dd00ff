"""Where a response ends: with its first EOS, which belongs to it (the authors' response mask)."""

import torch
from ampo_plugins.rollouts.transformers import decoding
from ampo_plugins.rollouts.transformers.decoding import Row, decode
from ampo_registry import SamplingOptions
from transformers import AutoModelForCausalLM


def test_a_response_ends_with_its_first_eos(monkeypatch, golden, tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    for case in golden("response_mask")["cases"]:
        ids, eos = case["ids"], case["eos"]
        stops = tuple(eos) if isinstance(eos, list) else (eos,)
        # The "noise" of a row is the tokens that it is to draw, so the real loop sees the golden ids.
        monkeypatch.setattr(decoding, "uniforms", lambda seeds, limit, ids=ids: torch.tensor(ids)[seeds])
        monkeypatch.setattr(decoding, "sample_tokens", lambda logits, noise, *_: (noise, torch.zeros(len(noise))))
        rows = [Row((5, 6), seed, len(ids[0])) for seed in range(len(ids))]
        sampled = decode(model, rows, SamplingOptions(1.0, 1.0, len(ids[0]), stops))
        for found, row, mask in zip(sampled, ids, case["mask"], strict=True):
            assert list(found.token_ids) == row[: sum(mask)]
            assert found.stopped == (found.token_ids[-1] in stops)
