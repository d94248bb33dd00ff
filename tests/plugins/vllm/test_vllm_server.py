"""The `vllm_server` rollout against a stand-in of its routes: what is asked, in which order, and what goes wrong."""

from dataclasses import replace

import pytest
import torch
from ampo_plugins.rollouts.vllm.server_engine import VllmServerEngine
from ampo_plugins.rollouts.vllm.spec import VllmServerRollout
from ampo_plugins.rollouts.vllm.transfer import WeightSender, buckets
from ampo_plugins.rollouts.vllm.weights import ModelParameters
from ampo_registry import BuildContext, ConfigError, RolloutRequest, RunError
from pydantic import ValidationError

from tests.plugins.vllm.conftest import sampling
from tests.plugins.vllm.fake_server import FakeServer

ASKED = [RolloutRequest((5, 6), (1, 2, 3)), RolloutRequest((7,), (4, 5, 6))]
WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "c": torch.zeros(1)}


class Everybody:
    """Broadcasts by putting each tensor into the queues of all servers."""

    def __init__(self, servers):
        self.servers, self.met, self.closed = servers, [], False

    def join(self, address, port, world_size):
        self.met.append((address, port, world_size))
        return self

    def broadcast(self, tensor):
        for server in self.servers:
            server.tensors.put(tensor)

    def close(self):
        self.closed = True


@pytest.fixture
def servers():
    found = [FakeServer(), FakeServer(workers=2)]
    yield found
    for server in found:
        server.close()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("ampo_plugins.server.BACKOFF_S", 0.01)


def connect(servers, tokenizer, config=None, **options):
    spec = VllmServerRollout(urls=[server.url for server in servers], start_timeout_s=5, timeout_s=5, **options)
    return spec.build(BuildContext(model_path="models/start", tokenizer=tokenizer, config=config or {}))


def sender(servers, engine, everybody, **options):
    arguments = {"address": "trainer", "port": 29999, "bucket_mib": 1, "join": everybody.join, **options}
    return WeightSender(engine.servers, **arguments)


def test_requests_are_spread_over_the_servers_and_answers_keep_their_order(servers, golden_tokenizer):
    engine = connect(servers, golden_tokenizer)
    groups = engine.generate(ASKED, sampling(0.7, 0.9, limit=5, stops=[9]))
    for request, group in zip(ASKED, groups, strict=True):
        for seed, rollout in zip(request.seeds, group, strict=True):
            free = [(seed + i) % 7 + 3 for i in range(5)]
            expected = free[: free.index(9) + 1] if 9 in free else free
            assert rollout.token_ids == tuple(expected)
            assert rollout.finish_reason == ("stop" if 9 in free else "length")
            shown = expected[:-1] if 9 in free else expected
            assert rollout.text == golden_tokenizer.decode(shown, skip_special_tokens=True)
            assert rollout.logprobs == (-0.5,) * len(expected)
    assert [server.routes().count("v1/completions") for server in servers] == [3, 3]
    [body] = [body for _, _, body in servers[0].asked if body.get("seed") == 1]
    assert {name: body[name] for name in ("model", "prompt", "temperature", "top_p", "max_tokens", "logprobs")} == {
        "model": "served",
        "prompt": [5, 6],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 5,
        "logprobs": 0,
    }
    assert (body["stop_token_ids"], body["ignore_eos"], body["return_token_ids"]) == ([9], True, True)
    assert engine.generate([], sampling()) == []
    short = replace(ASKED[0], max_response_tokens=2)
    assert [len(r.token_ids) for r in engine.generate([short], sampling(limit=5))[0]] == [2] * len(short.seeds)
    engine.close()


def test_a_failing_server_is_asked_again_and_then_named(servers, golden_tokenizer, quick):
    engine = connect(servers, golden_tokenizer, retries=2)
    servers[0].broken["v1/completions"] = [500, 503]
    assert len(engine.generate(ASKED, sampling(limit=3))) == 2
    servers[1].broken["v1/completions"] = [500] * 30
    with pytest.raises(RunError, match=rf"{servers[1].url}/v1/completions: HTTP 500 .*told to fail.*, asked 3 times"):
        engine.generate(ASKED, sampling(limit=3))
    servers[1].broken["v1/completions"] = [400] * 30  # requests of the call before may still be on their way
    with pytest.raises(RunError, match=r"HTTP 400 Bad Request: [^,]*$"):
        engine.generate(ASKED[:1], sampling(limit=3))
    servers[0].broken["v1/models"] = [500, 503, 429]
    with pytest.raises(RunError, match=rf"GET {servers[0].url}/v1/models: HTTP 429 Too Many Requests.*, asked 3 times"):
        connect(servers, golden_tokenizer, retries=2)
    with pytest.raises(RunError, match="need more than the engine's 64"):
        engine.generate(ASKED, sampling(limit=63))
    engine.close()


def test_what_is_served_must_be_the_jobs_model(servers, golden_tokenizer):
    servers[1].model = "models/other"
    with pytest.raises(
        ConfigError, match=rf"{servers[1].url} serves models/other, and the job's model is models/start"
    ):
        connect(servers, golden_tokenizer)
    servers[0].model = "models/other"
    connect(servers, golden_tokenizer, served_model="models/other").close()


def test_a_server_with_the_weights_of_an_earlier_run_is_refused(golden_tokenizer):
    used = FakeServer(weight_version="200")
    engine = connect([used], golden_tokenizer)
    with pytest.raises(RunError, match=rf"{used.url} holds the weights of an earlier run; restart"):
        engine.generate(ASKED, sampling(limit=3))
    engine.close()
    used.close()


def test_a_server_that_is_not_up(golden_tokenizer, quick):
    gone = FakeServer()
    gone.close()
    spec = VllmServerRollout(urls=[gone.url], start_timeout_s=0.1)
    with pytest.raises(RunError, match=rf"{gone.url} is not up after 0\.1 s: .*refused"):
        spec.build(BuildContext(model_path="models/start", tokenizer=golden_tokenizer))


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://me:secret@host:8000", "http://host:8000/?key=secret", "http://host#secret"]
)
def test_urls_hold_no_secret(url):
    with pytest.raises(ValidationError, match="urls"):
        VllmServerRollout(urls=[url])


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU says")
def test_without_a_gpu_weights_are_refused(servers, golden_tokenizer):
    with pytest.raises(ConfigError, match="over NCCL, and this machine has no GPU"):
        connect(servers, golden_tokenizer, config={"job": "train"})
    engine = connect(servers, golden_tokenizer)
    with pytest.raises(RunError, match="over NCCL, and this machine has no GPU"):
        engine.load_weights(WEIGHTS.items(), 1)
    engine.close()


def test_weights_reach_every_server_in_the_order_of_the_protocol(servers, golden_tokenizer):
    engine = connect(servers, golden_tokenizer)
    everybody = Everybody(servers)
    found = sender(servers, engine, everybody)
    assert everybody.met == [("trainer", 29999, 4)]
    infos = [body["init_info"] for server in servers for route, _, body in server.asked if "init_weight" in route]
    assert infos == [
        {"master_address": "trainer", "master_port": 29999, "rank_offset": offset, "world_size": 4} for offset in (1, 2)
    ]
    for version in (1, 2):
        for server in servers:
            server.asked.clear()
            server.received.clear()
        found.send(((name, version * tensor) for name, tensor in WEIGHTS.items()), version)
        for server in servers:
            assert server.routes() == [
                "pause",
                "start_weight_update",
                "update_weights",
                "finish_weight_update",
                "reset_prefix_cache",
                "resume",
            ]
            assert server.asked[0][1] == {"mode": "wait"}
            assert server.asked[2][2]["update_info"] == {
                "names": ["a", "b", "c"],
                "dtype_names": ["float32", "bfloat16", "float32"],
                "shapes": [[2, 3], [4], [1]],
            }
            assert server.asked[3][2] == {"weight_version": str(version)}
            assert all(torch.equal(server.received[name], version * tensor) for name, tensor in WEIGHTS.items())
    found.close()
    assert everybody.closed
    engine.close()


def test_large_models_go_in_buckets(servers, golden_tokenizer):
    sizes = [[name for name, _ in bucket] for bucket in buckets(WEIGHTS.items(), 32)]
    assert sizes == [["a", "b"], ["c"]]
    assert [len(bucket) for bucket in buckets(WEIGHTS.items(), 1)] == [1, 1, 1]
    assert list(buckets([], 1)) == []
    engine = connect(servers, golden_tokenizer)
    found = sender(servers, engine, Everybody(servers))
    found._bucket = 10
    found.send(WEIGHTS.items(), 1)
    assert servers[1].routes().count("update_weights") == 3
    assert set(servers[1].received) == set(WEIGHTS)
    found.close()
    engine.close()


def test_a_server_without_the_routes_or_that_fails_is_named(servers, golden_tokenizer):
    engine = connect(servers, golden_tokenizer)
    found = sender(servers, engine, Everybody(servers))
    servers[1].broken["start_weight_update"] = [404]
    with pytest.raises(RunError, match=rf"{servers[1].url}/start_weight_update: HTTP 404.*VLLM_SERVER_DEV_MODE=1"):
        found.send(WEIGHTS.items(), 1)
    servers[0].broken["update_weights"] = [500]
    with pytest.raises(RunError, match=rf"{servers[0].url}/update_weights: HTTP 500"):
        found.send(WEIGHTS.items(), 1)
    found.close()
    servers[0].broken["init_weight_transfer_engine"] = [500]
    with pytest.raises(RunError, match=rf"{servers[0].url}/init_weight_transfer_engine: HTTP 500"):
        sender(servers, engine, Everybody(servers))
    engine.close()


def test_load_weights_checks_what_it_sends(servers, golden_tokenizer, tied_model, monkeypatch):
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for server in servers:
        server.model = str(tied_model)
    everybody = Everybody(servers)
    monkeypatch.setattr("ampo_plugins.rollouts.vllm.transfer.join_nccl", everybody.join)
    spec = VllmServerRollout(urls=[server.url for server in servers], timeout_s=30)
    engine = spec.build(BuildContext(model_path=str(tied_model), tokenizer=golden_tokenizer))
    assert isinstance(engine, VllmServerEngine)
    read, of = [], ModelParameters.of
    monkeypatch.setattr(ModelParameters, "of", lambda path, **options: read.append(path) or of(path, **options))
    weights = dict(AutoModelForCausalLM.from_pretrained(tied_model).named_parameters())
    engine.load_weights(weights.items(), 3)
    assert set(servers[0].received) == {*weights, "lm_head.weight"}
    assert engine.generate(ASKED, sampling(limit=3))[0][0].policy_version == 3
    with pytest.raises(RunError, match=r"did not come, first model\.norm\.weight"):
        engine.load_weights(((n, p) for n, p in weights.items() if n != "model.norm.weight"), 4)
    assert read == [str(tied_model)]  # the model is looked at once, not at every sync
    engine.close()
