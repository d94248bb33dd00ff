"""What a component says of itself is checked with the config: nonsense is an error that names it, at its key."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ampo_registry import ConfigError
from ampo_registry.discovery import discover

from ampo_core.config.load import load_config
from ampo_core.config.nodes import dotted

BASES = {
    "selector": ("SelectorSpec", "def select(self, requests, context): return []", "guidance.selector=odd"),
    "loss": ("LossSpec", "def token_losses(self, view): return view.log_probs", "objective.on_policy.loss=odd"),
    "aggregator": (
        "AggregatorSpec",
        "def token_weights(self, lengths, totals): return lengths",
        "objective.off_policy.aggregator=odd",
    ),
    "intervention": (
        "InterventionSpec",
        "def intervene(self, requests, context): return None",
        "guidance.intervention=odd",
    ),
    "rollout": (
        "RolloutSpec",
        "def build(self, context): return None",
        "rollout={type: odd, group_size: 4, max_response_tokens: 32}",
    ),
    "advantage": ("CreditSpec", "def credit(self, groups, context): return []", "objective.advantage=odd"),
    "judge": ("JudgeSpec", "def logprobs(self, requests, temperature): return []", "judges={mine: odd}"),
    "teacher_pool": (
        "LateTeacherPoolSpec",
        "def answers(self, question, group): return []",
        "guidance.teacher_pool=odd",
    ),
    "reward": (
        "RewardSpec",
        "def grade(self, requests): return []\n    def check_truth(self, answer): return None",
        "reward=odd",
    ),
    "schedule": ("ScheduleSpec", "def value(self, step, steps, metrics): return 1.0", "guidance.threshold=odd"),
}
PLUGIN = '''
import sys
from typing import ClassVar, Literal
from ampo_registry import *

class Odd(BASE):
    """Odd."""
    type: Literal["odd"] = "odd"
    level: int = 1

    METHOD

    SETTING

@hookimpl
def ampo_specs():
    return [Odd]
'''
CASES = [
    ("selector", "def unavailable(self): return 0", "unavailable", "gave 0; expected a reason, or None"),
    ("selector", "def unavailable(self): sys.exit(0)", "unavailable", "SystemExit: 0"),
    ("selector", "def unavailable(self): raise KeyboardInterrupt", "unavailable", "KeyboardInterrupt"),
    ("selector", "def unavailable(self, x): return None", "unavailable", "TypeError: "),
    ("selector", "def warnings(self): return None", "warnings", "TypeError: 'NoneType' object is not iterable"),
    ("selector", "def warnings(self): return ['level']", "warnings", "gave list ['level']; expected (option, text)"),
    ("selector", "def warnings(self): return [('levl', 'is odd')]", "warnings", "expected (option, text) pairs"),
    ("selector", "def warnings(self): yield 1 / 0", "warnings", "ZeroDivisionError"),
    ("selector", "logs = 'mine/x'", "logs", "gave 'mine/x'; expected a tuple with the names of metrics"),
    ("loss", "needs: ClassVar[str] = 'old'", "needs", "gave 'old'; expected a frozenset of names"),
    ("loss", "needs = property(lambda self: 1 / 0)", "needs", "ZeroDivisionError: division by zero"),
    ("loss", "needs = property(lambda self: None)", "needs", "gave None; expected a frozenset of names"),
    ("loss", "needs: ClassVar[list] = ['old']", "needs", "gave list ['old']; expected a frozenset of names"),
    ("loss", "judges: ClassVar[tuple] = ('base',)", "judges", "gave tuple ('base',); expected a frozenset"),
    ("selector", "judges: ClassVar[str] = 'base'", "judges", "gave 'base'; expected a frozenset"),
    ("selector", "judges = property(lambda self: None)", "judges", "gave None; expected a frozenset"),
    ("selector", "def judges(self): return frozenset()", "judges", "expected a frozenset with the names of judges"),
    ("selector", "judges = property(lambda self: [][0])", "judges", "IndexError"),
    ("advantage", "reads_selections = property(lambda self: None)", "reads_selections", "gave None; expected True"),
    ("advantage", "def reads_selections(self): return True", "reads_selections", "expected True or False"),
    ("judge", "def refuses(self, temperature): return 0", "refuses", "gave 0; expected a reason, or None"),
    ("judge", "def refuses(self, temperature): return {}[temperature]", "refuses", "KeyError: 1.0"),
    ("judge", "def model(self): return None", "model", "expected a folder or Hub name, or None"),
    ("judge", "model = property(lambda self: sys.exit(0))", "model", "SystemExit: 0"),
    ("teacher_pool", "names: ClassVar[str] = 'A'", "names", "gave 'A'; expected a tuple with the names of teachers"),
    ("teacher_pool", "names = property(lambda self: 1 / 0)", "names", "ZeroDivisionError"),
    ("intervention", "terms: ClassVar[list] = ['sft']", "terms", "gave list ['sft']; expected a frozenset"),
    ("loss", "zero_without_advantage = 'no'", "zero_without_advantage", "gave 'no'; expected True or False"),
    ("aggregator", "def depends_on_count(self): return None", "depends_on_count", "gave None; expected True or False"),
    ("aggregator", "def depends_on_count(self): raise OSError('no')", "depends_on_count", "OSError: no"),
    ("intervention", "terms: ClassVar[tuple] = ('sft', 3)", "terms", "gave tuple ('sft', 3); expected a frozenset"),
    ("intervention", "terms = property(lambda self: sys.exit(0))", "terms", "SystemExit: 0"),
    ("rollout", "def unfit(self, ranks): return False", "unfit", "gave False; expected a reason, or None"),
    ("rollout", "def unfit(self, ranks): return {}[ranks]", "unfit", "KeyError: 1"),
    ("rollout", "def room(self): return 512", "room", "gave 512; expected (the option that says so, tokens), or None"),
    ("rollout", "def room(self): return ('no_option', 512)", "room", "expected (the option that says so, tokens)"),
    ("rollout", "def room(self): return ('level', -1)", "room", "expected (the option that says so, tokens)"),
    ("rollout", "def room(self): raise SystemExit", "room", "SystemExit"),
    ("reward", "def earns(self, correct): return 0.5", "earns", "gave 0.5; expected (least, most), two finite"),
    ("reward", "def earns(self, correct): return (1.0, 0.0)", "earns", "expected (least, most)"),
    ("schedule", "def range(self): return 0.5", "range", "gave 0.5: expected (least, largest)"),
    ("schedule", "def range(self): return (1.0, 0.6)", "range", "gave (1.0, 0.6): expected (least, largest)"),
    ("schedule", "def range(self): sys.exit(0)", "range", "raised SystemExit: 0"),
]


@pytest.fixture
def plugin(folder: Path) -> Iterator[Path]:
    path, modules = list(sys.path), set(sys.modules)
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    yield folder / "odd_settings.py"
    signal.signal(signal.SIGINT, before)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name == "odd_settings":
            del sys.modules[name]


@pytest.mark.parametrize(("kind", "setting", "method", "text"), CASES, ids=[f"{c[0]}-{c[1][:60]}" for c in CASES])
def test_nonsense_is_refused_with_the_config(plugin: Path, kind: str, setting: str, method: str, text: str) -> None:
    base, body, override = BASES[kind]
    source = PLUGIN.replace("BASE", base).replace("METHOD", body).replace("SETTING", setting)
    plugin.write_text(source)
    with pytest.raises(ConfigError) as caught:
        load_config("base.yaml", [override], discover([plugin]))
    said = str(caught.value)
    assert text in said
    key = {"judge": "judges.mine"}.get(kind, override.partition("=")[0])
    assert f"{key}: " in said
    wanted = "range() of the schedule Odd" if kind == "schedule" else f"{kind} odd (Odd.{method}"
    assert wanted in said
    assert said.count("\n") == 0


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("weights: str = 'none-here'; model = property(lambda self: self.weights)", "judges.mine.weights"),
        ("path: str = 'none-here'; model = property(lambda self: self.path)", "judges.mine.path"),
        ("model = property(lambda self: 'none-here')", "judges.mine"),
    ],
    ids=["weights", "path", "no-option"],
)
def test_the_model_of_a_judge_is_named_by_the_option_that_says_it(plugin: Path, setting: str, key: str) -> None:
    base, body, override = BASES["judge"]
    source = PLUGIN.replace("BASE", base).replace("METHOD", body).replace("SETTING", setting.replace("; ", "\n    "))
    plugin.write_text(source)
    overrides = [override, "objective.advantage={type: distill, judge: mine}"]
    found = [*load_config("base.yaml", overrides, discover([plugin])).job.used_models()]
    assert [dotted(model.path) for model in found if model.name.endswith("none-here")] == [key]
