"""The `vllm_server` rollout against a real server on this machine's CPU: all but the tensors, which need a GPU."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from ampo_plugins.judges.endpoint import EndpointJudge
from ampo_plugins.rollouts.vllm.spec import VllmServerRollout
from ampo_plugins.server import HttpServer
from ampo_registry import BuildContext, ConfigError, JudgeRequest, RunError, TokenIds
from ampo_registry.testing import check_judge
from transformers import AutoModelForCausalLM

from ampo_core.learner.frozen import FrozenModel
from tests.plugins.judges.conftest import largest_gap as largest_gap_of_judges
from tests.plugins.judges.conftest import requests as requests_of_judges
from tests.plugins.vllm.conftest import needs_vllm, own_environment, requests, sampling
from tests.plugins.vllm.parity import largest_gap, tokens

needs_server = pytest.mark.skipif(
    importlib.util.find_spec("prometheus_fastapi_instrumentator") is None, reason="vLLM's server is not installed here"
)
pytestmark = [needs_vllm, needs_server, pytest.mark.slow, pytest.mark.process]

# As `vllm serve`, whose command asks for the version of a distribution named vllm.
COMMAND = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--dtype", "float32"]
OPTIONS = ["--enforce-eager", "--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"]
SIZES = ["--max-model-len", "512", "--kv-cache-memory-bytes", str(2**28)]


@pytest.fixture(scope="module")
def url(tied_model, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    transfer = ["--weight-transfer-config", '{"backend": "nccl"}']
    environment = {**own_environment(), "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*COMMAND, *OPTIONS, *SIZES, *transfer, "--model", str(tied_model), "--port", str(port)],
            cwd=folder,
            stdout=log,
            stderr=log,
            # a compiler for one function of the sampler would take longer than the tests
            env={**environment, "TORCHDYNAMO_DISABLE": "1"},
            start_new_session=True,
        )
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=60)


def test_a_real_server_samples_as_asked_and_knows_the_routes(url, tied_model, golden_tokenizer):
    spec = VllmServerRollout(urls=[url], start_timeout_s=300)
    engine = spec.build(BuildContext(model_path=str(tied_model), tokenizer=golden_tokenizer))
    groups = engine.generate(requests(4), sampling(0.7, limit=40))
    model = AutoModelForCausalLM.from_pretrained(tied_model)
    assert largest_gap(model, requests(4), groups, 0.7) < 1e-4
    assert tokens(engine.generate(requests(4), sampling(0.7, limit=40))) == tokens(groups)
    third = groups[0][0].token_ids[2]
    stopped = engine.generate(requests(1), sampling(0.7, limit=40, stops=[third]))[0][0]
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids[-1] == third
    server = HttpServer(url, 60)
    assert server.get("get_world_size") == {"world_size": 1}
    server.post("pause?mode=wait")
    server.post("resume")
    server.post("reset_prefix_cache")
    wrong = {"init_info": {"master_address": "127.0.0.1", "master_port": 1, "ranks": 2}}
    with pytest.raises(RunError, match=f"{url}/init_weight_transfer_engine: HTTP 500"):
        server.post("init_weight_transfer_engine", wrong)
    server.post("start_weight_update", {"is_checkpoint_format": True})
    server.post("finish_weight_update", {"weight_version": "3"})
    engine.close()
    later = spec.build(BuildContext(model_path=str(tied_model), tokenizer=golden_tokenizer))
    with pytest.raises(RunError, match="holds the weights of an earlier run"):
        later.generate(requests(1), sampling(limit=4))
    later.close()


def test_the_judge_endpoint_agrees_with_the_judge_transformers(url, tied_model, golden_tokenizer):
    context = BuildContext(tokenizer=golden_tokenizer, place="judges.far", longest=511)
    spec = EndpointJudge(url=f"{url}/v1", retries=60)
    HttpServer(url, 60).wait_until_up(300)
    spec.check(context)
    with pytest.raises(ConfigError, match=r"^judges\.far\.url: .* takes 512 tokens; .* up to 512, and it needs room"):
        spec.check(replace(context, longest=512))
    with pytest.raises(ConfigError, match=r"^judges\.far\.served_model: found 'other', which .* does not serve"):
        EndpointJudge(url=url, served_model="other").check(context)
    judge = spec.build(context)
    other = FrozenModel(str(tied_model), "float32", torch.device("cpu"), 1024, key="judges.other.path")
    longest = JudgeRequest(TokenIds(range(2, 62)), TokenIds([7, 9] * 225 + [11]))
    asked = [longest, *requests_of_judges(20)]
    assert largest_gap_of_judges(judge.logprobs(asked, 1.0), other.logprobs(asked, 1.0)) < 1e-4
    check_judge(spec, context)
    larger = deepcopy(golden_tokenizer)
    larger.add_tokens(["<new>"])
    with pytest.raises(ConfigError, match=r"has another vocabulary than the student: token \d+ is '<new>' to the stud"):
        spec.check(replace(context, tokenizer=larger))
    boast = EndpointJudge(url=url, applies_temperature=True)
    with pytest.raises(ConfigError, match="gave the same log-probs at temperature 1 and 2"):
        boast.check(context)
