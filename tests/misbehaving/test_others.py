"""Trackers and observers that fail are told of once and training goes on; tasks are refused; tracebacks on demand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.misbehaving.world import World

pytestmark = pytest.mark.process
slower = pytest.mark.misbehaving
TRACKER = '''
class Odd(TrackerSpec):
    """Odd."""
    type: Literal["odd"] = "odd"

    def build(self, context):
        return Mine()


class Mine:
    def log(self, metrics, step):
        {log}

    def close(self):
        {close}

    def state_dict(self):
        {state}

    def load_state_dict(self, state):
        return None
'''
OBSERVER = """
@hookimpl
def {hook}:
    {does}
"""
HOOKS = {
    "ampo_run_started": "ampo_run_started(context)",
    "ampo_step_finished": "ampo_step_finished(report, context)",
    "ampo_run_finished": "ampo_run_finished(context, warnings)",
}
FAILS = {
    "raises": ("raise RuntimeError('it broke')", "RuntimeError: it broke"),
    "exits": ("sys.exit(0)", "SystemExit: 0"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "disk-full": ("raise OSError(28, 'No space left on device')", "OSError: [Errno 28] No space left on device"),
    "says-error": ("raise RunError('the server went away')", "the server went away"),
}


@pytest.mark.parametrize("method", ["log", "close", "state"])
@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=() if name == "exits" else slower) for name in FAILS], ids=str
)
def test_a_tracker_that_fails_is_told_of_once_and_left_out(world: World, method: str, fault: str) -> None:
    does, said = FAILS[fault]
    good = {"log": "return None", "close": "return None", "state": "return {}"}
    ended = world(TRACKER.format(**{**good, method: does}), "tracking=[odd]")
    assert ended.code == 0, ended.said
    name = {"state": "state_dict"}.get(method, method)
    assert ended.said.count(f"(Mine.{name}, ") == 1, ended.said
    assert "warning: tracker odd (Mine." in ended.said
    assert said in " ".join(ended.said.split())
    assert "done: " in ended.said
    assert "Traceback" not in ended.said


@slower
@pytest.mark.parametrize("state", ["return {'x': object()}", "return {'x': math.nan}", "return len"])
def test_a_trackers_memory_must_be_json(world: World, state: str) -> None:
    ended = world(TRACKER.format(log="return None", close="return None", state=state), "tracking=[odd]")
    assert ended.code == 0, ended.said
    assert "expected a mapping in JSON types" in " ".join(ended.said.split())


@slower
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("fault", ["raises", "exits", "interrupts"])
def test_an_observer_that_fails_is_told_of_once(world: World, hook: str, fault: str) -> None:
    does, said = FAILS[fault]
    ended = world(OBSERVER.format(hook=HOOKS[hook], does=does))
    assert ended.code == 0, ended.said
    assert ended.said.count(f"{hook} failed: ") == 1
    assert said in ended.said
    assert "odd.py:" in ended.said


TASK = '''
class Odd(TaskSpec):
    """Odd."""
    type: Literal["odd"] = "odd"

    def make(self, seed):
        one = TaskQuestion((Message("user", "1"),), "1", "toy", teacher_answers=(TeacherAnswer("A", "1"),))
        {make}

    def write_start_model(self, folder, seed):
        {model}
'''
MAKE = {
    "return None": "gave None; expected a TaskData",
    "return TaskData(None, {})": "gave train = None; expected a tuple of TaskQuestions",
    "return TaskData((None,), {})": "gave train, number 1: None",
    "return TaskData((one,), None)": "gave heldout = None",
    "return TaskData((one,), {'a': None})": "gave a = None",
    "return TaskData((one,), {'a': (1,)})": "gave a, number 1: 1",
    "return TaskData((one,), {}, sft=('text',))": "gave sft, number 1: 'text'",
    "return TaskData((one,), {'../../evil': (one,)})": "a held-out set named '../../evil'",
    "return TaskData((one,), {'/tmp/evil': (one,)})": "a held-out set named '/tmp/evil'",
    "return TaskData((one,), {'': (one,)})": "a held-out set named ''",
    "return TaskData((one,), {'a\\nb': (one,)})": "a held-out set named 'a\\nb'",
    "return TaskData((one,), {3: (one,)})": "a held-out set named 3",
    "sys.exit(0)": "SystemExit: 0",
    "return 1 / 0": "ZeroDivisionError: division by zero",
}
MODEL = {
    "return None": "gave None; expected True, or False where there is no model",
    "return True": "gave True, and no config.json in its folder",
    "raise SystemExit": "SystemExit",
}


def prepare(world: World, folder: Path, **methods: str) -> tuple[int, str]:
    path = folder / "prepare.yaml"
    path.write_text(yaml.safe_dump({"job": "prepare", "task": "odd", "reward": {"type": "math_verify", "workers": 1}}))
    good = {"make": "return TaskData((one,), {})", "model": "return False"}
    ended = world(TASK.format(**{**good, **methods}), config=path)
    return ended.code, ended.said


@pytest.mark.parametrize(
    ("method", "does"),
    [
        pytest.param(method, does, marks=() if "../evil" in does else slower)
        for method, table in (("make", MAKE), ("model", MODEL))
        for does in table
    ],
    ids=lambda value: value.replace(" ", "").replace("\\", ""),
)
def test_a_task_that_misbehaves_is_named_and_writes_nothing(
    world: World, tmp_path: Path, method: str, does: str
) -> None:
    code, said = prepare(world, tmp_path, **{method: does})
    assert code == 2, said
    name = "make" if method == "make" else "write_start_model"
    assert f"task odd (Odd.{name}, " in said
    assert (MAKE if method == "make" else MODEL)[does] in said
    assert "Traceback" not in said
    assert not list(world.folder.glob("**/evil*"))


@slower
def test_an_engine_that_misbehaves_in_an_evaluation_is_named_and_the_run_had_begun(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "evaluate.yaml"
    job = {
        "job": "evaluate",
        "models": {"one": {"path": str(world.model), "dtype": "float32"}},
        "rollout": {"type": "odd", "max_response_tokens": 24},
        "reward": {"type": "math_verify", "workers": 1},
        "evaluation": {"sets": {"toy": {"path": str(world.data)}}},
        "data": {"max_prompt_tokens": 64},
        "resources": {"threads": 1},
    }
    path.write_text(yaml.safe_dump(job))
    plugin = '''
class Odd(RolloutSpec):
    """Odd."""
    type: Literal["odd"] = "odd"

    def build(self, context):
        return type("Mine", (Engine,), {"generate": lambda self, requests, options: []})()
'''
    ended = world(plugin, config=path)
    assert ended.code == 1, ended.said
    assert "rollout odd (Mine.generate, " in ended.said
    assert "gave 0 lists for 4 requests" in ended.said


@slower
def test_debug_shows_the_traceback_of_a_plugins_fault(world: World) -> None:
    plugin = '''
class Odd(TriggerSpec):
    """Odd."""
    type: Literal["odd"] = "odd"

    def fires(self, group, context):
        return {}["no"]
'''
    ended = world(plugin, "guidance.trigger=odd", "--debug")
    assert ended.code == 1
    assert 'return {}["no"]' in ended.said
    assert "The above exception was the direct cause" in ended.said
    assert "KeyError: 'no'" in ended.said


def test_a_loss_that_is_not_finite_once_is_named_and_its_update_skipped(world: World) -> None:
    plugin = '''
class Odd(LossSpec):
    """Odd."""
    type: Literal["odd"] = "odd"

    def token_losses(self, view):
        return view.log_probs * (math.nan if view.context.step == 1 else 1.0)
'''
    ended = world(plugin, "objective.on_policy.loss=odd")
    assert ended.code == 0, ended.said
    assert ended.said.count("loss odd at on_policy.loss (Odd.token_losses, ") == 1, ended.said
    said = " ".join(ended.said.split())
    assert "step 1: loss odd" in said
    assert "gave nan in the term on_policy; expected finite numbers" in said
    metrics = next(world.folder.glob(f"case-{world.runs}/**/metrics.jsonl")).read_text("utf-8").splitlines()
    assert [json.loads(line)["policy/skipped_updates"] for line in metrics] == [1.0, 0.0]
