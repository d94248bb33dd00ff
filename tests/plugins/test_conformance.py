"""The built-ins pass the kit that third parties use, in every option that changes what they do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import ampo_plugins.advantages
import ampo_plugins.aggregators
import ampo_plugins.judges
import ampo_plugins.selectors
import ampo_plugins.shapings
import ampo_plugins.teacher_pools
import ampo_plugins.trackers
import ampo_plugins.triggers
import pytest
from ampo_plugins.advantages import GroupNormalized, MeanOnly, OnPolicyBaseline
from ampo_plugins.aggregators import Constant, Sequencewise, Tokenwise
from ampo_plugins.rewards import Choice, MathVerify
from ampo_plugins.selectors import Comprehension, Length, RandomChoice
from ampo_plugins.shapings import Identity, LogProb, Power, PPlusLogProb, Ratio
from ampo_plugins.teacher_pools import Dataset
from ampo_plugins.trackers import TensorBoard, Wandb
from ampo_plugins.triggers import Adaptive, Always
from ampo_registry import (
    AdvantageSpec,
    AggregatorSpec,
    BuildContext,
    ComponentSpec,
    RewardSpec,
    SelectorSpec,
    ShapingSpec,
    TriggerSpec,
)
from ampo_registry.selectors import Decimals
from ampo_registry.specs import component_name
from ampo_registry.testing import (
    check_advantage,
    check_aggregator,
    check_reward,
    check_selector,
    check_shaping,
    check_spec_class,
    check_teacher_pool,
    check_tracker,
    check_trigger,
    check_unavailable,
)

NAMES = {
    ampo_plugins.selectors: {"comprehension", "length", "random"},
    ampo_plugins.triggers: {"adaptive", "always"},
    ampo_plugins.aggregators: {"token", "seq", "constant"},
    ampo_plugins.shapings: {"ratio", "identity", "power", "log_prob", "p_plus_log_prob"},
    ampo_plugins.teacher_pools: {"dataset"},
    ampo_plugins.advantages: {"distill", "group_normalized", "mean_only", "on_policy_baseline"},
    ampo_plugins.judges: {"transformers", "vllm", "endpoint"},
    ampo_plugins.trackers: {"tensorboard", "wandb"},
}


def ids(specs: Iterable[ComponentSpec]) -> list[str]:
    return [component_name(type(spec)) for spec in specs]


@pytest.mark.parametrize("folder", NAMES, ids=lambda folder: folder.__name__)
def test_each_folder_brings_its_components(folder: object) -> None:
    specs = folder.ampo_specs()  # type: ignore[attr-defined]
    assert {component_name(spec) for spec in specs} == NAMES[folder]  # type: ignore[index]


SELECTORS: list[SelectorSpec] = [
    Comprehension(),
    Comprehension(mean="arithmetic", rank_format_weight=0.1, score_rounding="bfloat16", ties="dataset"),
    Comprehension(score_rounding=Decimals(decimals=2)),
    Length(),
    Length(prefer="long"),
    RandomChoice(),
]


@pytest.mark.parametrize("spec", SELECTORS, ids=ids(SELECTORS))
def test_selectors(spec: SelectorSpec) -> None:
    check_selector(spec)


@pytest.mark.parametrize("spec", [Adaptive(), Always()], ids=["adaptive", "always"])
def test_triggers(spec: TriggerSpec) -> None:
    check_trigger(spec)


AGGREGATORS: list[AggregatorSpec] = [
    Constant(),
    Constant(length=100),
    Constant(per_sequence=True),
]


@pytest.mark.parametrize("spec", [Tokenwise(), Sequencewise()], ids=["token", "seq"])
def test_aggregators_that_are_means(spec: AggregatorSpec) -> None:
    check_aggregator(spec, total=1.0)


@pytest.mark.parametrize("spec", AGGREGATORS)
def test_aggregators_with_a_constant(spec: AggregatorSpec) -> None:
    check_aggregator(spec)


SHAPINGS: list[ShapingSpec] = [
    Ratio(),
    Ratio(gamma=1e-4),
    Identity(),
    Power(),
    Power(exponent=2.0),
    Power(exponent=10.0),
    LogProb(),
    PPlusLogProb(),
]


@pytest.mark.parametrize("spec", SHAPINGS, ids=ids(SHAPINGS))
def test_shapings(spec: ShapingSpec) -> None:
    check_shaping(spec)


ADVANTAGES: list[AdvantageSpec] = [
    GroupNormalized(),
    GroupNormalized(ddof=1, zero_without_correct=True),
    MeanOnly(),
    MeanOnly(zero_without_correct=True),
    OnPolicyBaseline(),
    OnPolicyBaseline(ddof=1, zero_without_correct=True),
]


@pytest.mark.parametrize("spec", ADVANTAGES, ids=ids(ADVANTAGES))
def test_advantages(spec: AdvantageSpec) -> None:
    check_advantage(spec)


@pytest.mark.parametrize("spec", [Dataset(), Dataset(teachers=("teacher-0", "teacher-2"))], ids=["all", "composition"])
def test_teacher_pools(spec: Dataset) -> None:
    check_teacher_pool(spec)


REWARDS: list[RewardSpec] = [MathVerify(), MathVerify(exact_numbers=False), Choice(), Choice(one_answer=False)]


@pytest.mark.parametrize("spec", REWARDS, ids=["math_verify", "released", "choice", "several"])
def test_rewards_that_say_by_their_canaries_what_is_right(spec: RewardSpec) -> None:
    check_reward(spec)


def test_a_reward_with_a_truth_and_another_answer() -> None:
    check_reward(MathVerify(), "42", "41")


def test_tensorboard(tmp_path: Path) -> None:
    check_tracker(TensorBoard(), tmp_path)


def test_wandb(tmp_path: Path) -> None:
    spec = Wandb()
    if spec.unavailable() is None:
        check_tracker(spec, tmp_path)
    else:
        check_spec_class(spec)
        check_unavailable(spec, spec.build, BuildContext(run_dir=tmp_path))


@pytest.mark.process
def test_listing_the_components_imports_neither_torch_nor_wandb() -> None:
    modules = ", ".join(folder.__name__ for folder in NAMES)
    code = (
        f"import sys, {modules}\n"
        "heavy = {'torch', 'transformers', 'tensorboard', 'wandb', 'ampo_core'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
