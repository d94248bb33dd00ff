"""Every refusal names file:line, key, found, allowed and the nearest match; all of a file at once."""

from pathlib import Path

import pytest
from ampo_registry.discovery import discover
from ampo_registry.errors import ConfigError

from ampo_core.config.load import load_config

CASES = {
    "unknown key": ("training:\n  stepz: 3\n", "c.yaml:3: training.stepz: no such key; did you mean steps? (allowed: "),
    "unknown key at the top": ("modle: 3\n", "c.yaml:2: modle: no such key; did you mean model? (allowed: job, run"),
    "key of another block": (
        "group_size: 3\n",
        "c.yaml:2: group_size: no such key here; did you mean rollout.group_size?",
    ),
    "wrong type": ("training: {steps: many}\n", 'c.yaml:2: training.steps: found "many", expected a whole number > 0'),
    "text for a number": ("training: {steps: '5'}\n", 'training.steps: found "5", expected a whole number > 0'),
    "bool for a number": ("training: {steps: true}\n", "training.steps: found true, expected a whole number > 0"),
    "fraction": ("training: {steps: 2.5}\n", "training.steps: found 2.5, expected a whole number > 0"),
    "yes for a bool": ("data: {shuffle: yes}\n", 'data.shuffle: found "yes", expected true or false'),
    "out of range": ("training: {steps: 0}\n", "training.steps: found 0, expected a whole number > 0"),
    "choice": ("model: {dtype: bf16}\n", 'found "bf16", expected one of float32, bfloat16; did you mean bfloat16?'),
    "union": (
        "objective: {on_policy: {weight: unti}}\n",
        'found "unti", expected one of unit, proportional, token_share or a number >= 0 or a schedule',
    ),
    "scalar for a block": ("training: 5\n", "c.yaml:2: training: found 5, expected a mapping"),
    "short list": ("objective: {off_policy: {loss: {clip: [0.2]}}}\n", "objective.off_policy.loss.clip.1: missing"),
    "list item": ("data: {train: [a, 3]}\n", "c.yaml:2: data.train.1: found 3, expected text"),
    "missing in a named block": (
        "evaluation:\n  sets:\n    a: {samples: 2}\n",
        "c.yaml:4: evaluation.sets.a.path: missing; expected text",
    ),
    "unknown component": (
        "guidance: {selector: comprehensoin}\n",
        "guidance.selector: no selector is named 'comprehensoin'; did you mean comprehension? (allowed: compr",
    ),
    "unknown component with options": (
        "guidance:\n  selector:\n    type: lenght\n",
        "c.yaml:4: guidance.selector.type: no selector is named 'lenght'; did you mean length?",
    ),
    "unknown function": (
        "reward: {type: function, function: nope, style: verl}\n",
        "c.yaml:2: reward.function: no function nope: functions are looked up in the files that",
    ),
    "unknown option": (
        "guidance:\n  selector:\n    type: length\n    prefers: long\n",
        "c.yaml:5: guidance.selector.prefers: no such key; did you mean prefer? (allowed: type, prefer)",
    ),
    "wrong option": (
        "guidance:\n  selector:\n    type: length\n    prefer: longest\n",
        'c.yaml:5: guidance.selector.prefer: found "longest", expected one of short, long',
    ),
    "option of an option": (
        "guidance: {selector: {score_rounding: {decimal: 2}}}\n",
        "guidance.selector.score_rounding.decimal: no such key; did you mean decimals?",
    ),
    "component of a wrong form": ("reward: 3\n", "c.yaml:2: reward: a reward is a name or {type: name, options}"),
    "component in a list": (
        "tracking: [tensorbord]\n",
        "tracking.0: no tracker is named 'tensorbord'; did you mean tensorboard?",
    ),
    "component of a set": (
        "evaluation: {sets: {a: {path: x, reward: {type: choise}}}}\n",
        "evaluation.sets.a.reward.type: no reward is named 'choise'; did you mean choice?",
    ),
}


@pytest.mark.parametrize(("text", "said"), CASES.values(), ids=CASES.keys())
def test_refusal(load, text, said):
    with pytest.raises(ConfigError) as error:
        load(text)
    assert said in str(error.value)
    assert error.value.exit_code == 2


def test_all_problems_are_reported_at_once_in_order(load):
    with pytest.raises(ConfigError) as error:
        load("training: {steps: no}\nmodle: 3\nguidance: {selector: x, threshold: high}\n")
    lines = [line.partition(": ")[0] for line in str(error.value).splitlines()]
    assert lines == ["c.yaml:2", "c.yaml:3", "c.yaml:4", "c.yaml:4"]


def test_missing_block_names_the_file(load):
    with pytest.raises(ConfigError) as error:
        load("job: train\nmodel: {path: model}\n")
    assert str(error.value) == "c.yaml:1: data: missing; expected a mapping"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run: {name: x}\n", "c.yaml:1: job: missing; expected one of train, sft"),
        ("job: trian\n", "did you mean train?"),
        ("job: [train]\n", "c.yaml:1: job: there is no job ['train']; did you mean train?"),
    ],
)
def test_the_job_must_be_known(folder, text, said):
    Path("c.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config("c.yaml")
    assert said in str(error.value)


def test_problem_in_the_parent_names_the_parents_file(load):
    Path("base.yaml").write_text(Path("base.yaml").read_text().replace("group_size", "group_sise"))
    with pytest.raises(ConfigError, match=r"base\.yaml:4: rollout\.group_sise: no such key; did you mean group_size\?"):
        load("training: {steps: 3}\n")


BROKEN = "raise RuntimeError('no licence')\n"


def test_a_broken_plugin_is_named_only_where_a_component_is_not_found(folder):
    Path("broken_for_config_test.py").write_text(BROKEN)
    plugins = discover([Path("broken_for_config_test.py")])
    assert load_config("base.yaml", (), plugins).job.run.name == "run"
    with pytest.raises(ConfigError) as error:
        load_config("base.yaml", ["guidance.selector=mine"], plugins)
    assert "no selector is named 'mine'" in str(error.value)
    assert "broken_for_config_test" in str(error.value)
    assert "no licence" in str(error.value)


REFUSING = '''
from typing import Literal
from ampo_registry import SelectorSpec, hookimpl
from pydantic import field_validator

class Refusing(SelectorSpec):
    """Refuses."""
    type: Literal["refusing"] = "refusing"
    level: int = 0

    @field_validator("level")
    @classmethod
    def check(cls, value):
        if value == 1:
            raise ValueError("level must be even")
        return {}[value] if value else value

    def select(self, requests, context):
        return []

    def unavailable(self):
        raise OSError("no device")

@hookimpl
def ampo_specs():
    return [Refusing]
'''


def test_what_a_plugins_own_code_raises_is_said_at_its_place(folder):
    Path("refusing_for_config_test.py").write_text(REFUSING)
    plugins = discover([Path("refusing_for_config_test.py")])
    selector = "guidance.selector={type: refusing, level: %d}"
    with pytest.raises(ConfigError, match=r"guidance\.selector\.level: level must be even \(found 1\)"):
        load_config("base.yaml", [selector % 1], plugins)
    with pytest.raises(ConfigError, match=r"guidance\.selector: the selector refuses its options: KeyError: 2"):
        load_config("base.yaml", [selector % 2], plugins)
    text = (
        r"guidance\.selector: selector refusing \(Refusing\.unavailable, .*/refusing_for_config_test\.py:\d+\): OSError"
    )
    with pytest.raises(ConfigError, match=text):
        load_config("base.yaml", [selector % 0], plugins)
