"""When the `vllm` rollout takes what off a GPU, with a stand-in for vllm.LLM: a CPU has nothing to take."""

from types import SimpleNamespace

import pytest
import torch
from ampo_plugins.rollouts.vllm.engine import VllmEngine
from ampo_plugins.rollouts.vllm.weights import ModelParameters
from ampo_registry import RunError

from tests.plugins.vllm.conftest import needs_vllm, requests, sampling

pytestmark = needs_vllm


class Recorder:
    """A vllm.LLM that notes what is called."""

    def __init__(self):
        self.calls = []
        config = SimpleNamespace(max_model_len=64, dtype=torch.float32)
        self.llm_engine = SimpleNamespace(vllm_config=SimpleNamespace(model_config=config))

    def sleep(self, level):
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags):
        self.calls.extend(f"wake {tag}" for tag in tags)

    def collective_rpc(self, method, kwargs):
        self.calls.append(f"{method} {[name for name, _ in kwargs['weights_iterator']]}")

    def reset_prefix_cache(self):
        pass


@pytest.fixture
def engine():
    parameters = ModelParameters({"w": (2,)}, {"w": ("w",)})
    return VllmEngine(None, Recorder(), None, parameters, team=None, guest_of_group=True, sleeps=True)


WEIGHTS = [("w", torch.ones(2))]


@pytest.mark.parametrize("level", [1, 2])
def test_a_step_wakes_the_weights_for_the_sync_and_the_cache_for_sampling(engine, level):
    engine.wake()
    engine.sleep(level)
    with pytest.raises(RunError, match="asleep"):
        engine.generate(requests(), sampling())
    engine.load_weights(WEIGHTS, 1)
    engine.load_weights(WEIGHTS, 2)
    engine.wake()
    engine.wake()
    reload = "reload_weights ['w']"
    assert engine.llm.calls == [f"sleep {level}", "wake weights", reload, reload, "wake kv_cache"]


def test_evaluation_and_training_may_sleep_in_turn_without_a_sync(engine):
    for _ in range(2):
        engine.wake()
        engine.sleep()
    engine.sleep()
    engine.wake()
    assert engine.llm.calls == ["sleep 1", "wake weights", "wake kv_cache"] * 2


def test_dropped_weights_must_come_back_before_sampling(engine):
    engine.sleep(2)
    with pytest.raises(RunError, match="load_weights must come first"):
        engine.wake()
    engine.load_weights(WEIGHTS, 1)
    engine.wake()


def test_where_nothing_sleeps_nothing_is_called(engine):
    engine._sleeps = False
    engine.sleep()
    engine.load_weights(WEIGHTS, 1)
    engine.wake()
    assert engine.llm.calls == ["reload_weights ['w']"]
