"""Whole train jobs on a small world: real data, model, sampler, verifier, DeepSpeed and files."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from ampo_registry import ConfigError, DataError, RunError
from ampo_registry.discovery import Plugins, discover

from tests.forge import Forge
from tests.loop.in_ranks import in_two_ranks
from tests.loop.worlds import metrics_of, run, train

pytestmark = pytest.mark.process

EVALUATION = {"every": 2, "temperature": 1.0, "sets": {"level1": {"samples": 2, "pass_at": [2]}}}


def test_an_ampo_run_writes_the_files_and_metrics_of_the_contract(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path
) -> None:
    evaluation = json.loads(json.dumps(EVALUATION))
    evaluation["sets"]["level1"]["path"] = str(world / "heldout/level1.parquet")
    policy, screen = run(
        train(world, student, evaluation=evaluation, tracking=["tensorboard"]), tmp_path, plugins, "run.name=ampo"
    )
    folder = tmp_path / "ampo"
    assert policy == folder / "checkpoints/step-000003/policy"
    lines = metrics_of(policy)
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert set(lines[0]) >= {"eval/level1/avg@2", "eval/level1/pass@2", "eval/level1/length_mean", "eval/macro/avg"}
    assert "eval/macro/avg" in lines[2]
    assert "eval/macro/avg" in lines[3]
    assert "eval/macro/avg" not in lines[1]
    names = """reward/mean reward/accuracy reward/format guidance/triggered guidance/replaced guidance/score_mean
        response/length_mean response/truncated policy/loss policy/loss_on policy/loss_off policy/entropy
        policy/grad_norm policy/clip_fraction policy/rollout_logprob_gap verifier/timeouts verifier/errors
        tokens/generated tokens/trained tokens/padding"""
    assert set(names.split()) <= set(lines[1])
    assert any(name.startswith("guidance/teacher/") for name in lines[1])
    assert all(line["policy/rollout_logprob_gap"] < 1e-4 for line in lines[1:])
    assert all(0 < line["guidance/replaced"] <= 2 * line["guidance/triggered"] for line in lines[1:])
    raw = json.loads((folder / "metrics.jsonl").read_text("utf-8").splitlines()[1])
    times = ["rollout", "reward", "guidance", "update", "sync", "step"]
    assert all(raw[f"time/{name}_s"] > 0 for name in times)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]
    assert {sample["source"] for sample in samples} == {"policy", "teacher"}
    assert all(sample["teacher"] and sample["score"] is not None for sample in samples if sample["source"] == "teacher")
    assert list((folder / "tensorboard").iterdir())
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["teachers"] == ["chain", "cipher", "terse", "verbose"]
    asked = {name: found["count"] for name, found in manifest["questions"].items()}
    assert asked == {"train": 40, "evaluation.level1": 4}
    assert "evaluation after step 3" in screen
    assert "triggered" in screen

    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoModelForCausalLM.from_pretrained(policy).num_parameters() > 0
    assert AutoTokenizer.from_pretrained(policy).chat_template

    with pytest.raises(ConfigError, match=r"holds a finished run, and these have changed since(?s:.*) evaluation: "):
        run(train(world, student), tmp_path, plugins, "run.name=ampo")


def test_the_same_config_and_seed_give_the_same_bits_and_another_seed_does_not(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path
) -> None:
    config = train(world, student, objective={"entropy_coefficient": 0.01, "kl": {"coefficient": 0.01}})
    once, _ = run(config, tmp_path / "a", plugins)
    again, _ = run(config, tmp_path / "b", plugins)
    other, _ = run(config, tmp_path / "c", plugins, "run.seed=4")
    assert metrics_of(once) == metrics_of(again)
    weights = "model.safetensors"
    assert (once / weights).read_bytes() == (again / weights).read_bytes()
    assert metrics_of(once) != metrics_of(other)


def test_micro_batches_do_not_change_a_run_beyond_rounding(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path
) -> None:
    losses = []
    for tokens in (110, 4096):
        policy, _ = run(
            train(world, student),
            tmp_path / str(tokens),
            plugins,
            f"training.tokens_per_microbatch={tokens}",
            "training.steps=1",
        )
        losses.append(metrics_of(policy)[0])
    for name in ("policy/loss", "policy/loss_on", "policy/loss_off", "policy/grad_norm", "policy/entropy"):
        assert losses[0][name] == pytest.approx(losses[1][name], rel=1e-3, abs=1e-6), name
    assert losses[0]["tokens/padding"] == losses[1]["tokens/padding"] == 0


def test_without_guidance_it_is_grpo(world: Path, student: Path, plugins: Plugins, tmp_path: Path) -> None:
    policy, _ = run(train(world, student, guidance=None), tmp_path, plugins)
    lines = metrics_of(policy)
    assert not any(name.startswith("guidance/") for line in lines for name in line)
    assert all(line["policy/loss_off"] == 0.0 for line in lines)


def test_the_group_filter_comes_after_guidance_and_resamples(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path
) -> None:
    drop = {"group_filter": {"drop": ["all_wrong", "all_correct"], "resample": False}}
    rescued = metrics_of(run(train(world, student, objective=drop), tmp_path / "ampo", plugins)[0])
    alone = metrics_of(run(train(world, student, objective=drop, guidance=None), tmp_path / "grpo", plugins)[0])
    assert sum(line["groups/trained"] for line in rescued) > sum(line["groups/trained"] for line in alone)
    drop["group_filter"]["resample"] = True
    resampled = metrics_of(run(train(world, student, objective=drop, guidance=None), tmp_path / "again", plugins)[0])
    assert sum(line["groups/trained"] for line in resampled) > sum(line["groups/trained"] for line in alone)
    assert sum(line["tokens/generated"] for line in resampled) > sum(line["tokens/generated"] for line in alone)


def test_the_released_preset_and_two_epochs_run(world: Path, student: Path, plugins: Plugins, tmp_path: Path) -> None:
    token_sum = {"type": "constant", "length": None, "per_sequence": False}
    config = train(
        world,
        student,
        guidance={
            "selector": {
                "type": "comprehension",
                "mean": "arithmetic",
                "rank_format_weight": 0.1,
                "score_rounding": "bfloat16",
                "ties": "dataset",
            },
            "teacher_reward": 1.0,
            "trigger": "always",
        },
        objective={
            "scope": "batch",
            "advantage": "mean_only",
            "on_policy": {
                "aggregator": token_sum,
                "loss": {"type": "clip", "dual": 10.0, "log_ratio_clamp": 20.0},
                "mask_truncated": True,
            },
            "off_policy": {"aggregator": token_sum},
        },
        training={"epochs_per_batch": 2, "steps": 2},
    )
    policy, _ = run(config, tmp_path, plugins)
    assert all(line["policy/grad_norm"] > 0 for line in metrics_of(policy))


def test_a_fault_in_mid_run_is_not_called_a_config_error(world: Path, student: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "greedy_plugin.py"
    plugin.write_text(
        "from typing import Literal\n"
        "from ampo_registry import Selection, SelectorSpec, hookimpl\n"
        "class Greedy(SelectorSpec):\n"
        "    type: Literal['greedy'] = 'greedy'\n"
        "    def select(self, requests, context):\n"
        "        return [[Selection(c) for c in r.candidates] for r in requests]\n"
        "@hookimpl\n"
        "def ampo_specs():\n"
        "    return [Greedy]\n"
    )
    config = train(world, student, guidance={"selector": "greedy", "replacements": 1})
    with pytest.raises(
        RunError, match=r"selector greedy \(Greedy\.select, .*greedy_plugin\.py:5\): question .*: gave .* at most 1"
    ) as caught:
        run(config, tmp_path, discover([plugin]))
    assert caught.value.exit_code == 1


def test_lora_trains_and_its_dropout_is_refused(world: Path, student: Path, plugins: Plugins, tmp_path: Path) -> None:
    config = train(world, student)
    config["model"]["lora"] = {"rank": 4}
    policy, _ = run(config, tmp_path, plugins, "training.steps=2")
    assert all(line["policy/rollout_logprob_gap"] < 1e-4 for line in metrics_of(policy))
    with pytest.raises(ConfigError, match=r"model\.lora\.dropout"):
        run(config, tmp_path, plugins, "model.lora.dropout=0.1", "run.name=refused")
    assert not (tmp_path / "refused").exists()


def test_a_train_file_without_teacher_answers_is_refused(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path
) -> None:
    config = train(world, student, data={"train": [str(world / "heldout/level1.parquet")]})
    with pytest.raises(DataError, match="has a teacher answer"):
        run(config, tmp_path, plugins, "run.name=refused")
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such data file"),
        ("", "holds no row"),
        ('{"prompt": [{"role": "user", "content": "x"}], "data_source": "s"}\n', "reward_model"),
        ("{broken\n", "row 1|line 1"),
    ],
)
def test_bad_data_is_refused_before_anything_starts(
    content: str | None, message: str, world: Path, student: Path, plugins: Plugins, tmp_path: Path
) -> None:
    path = tmp_path / "data.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"(?i){message}") as caught:
        run(train(world, student, data={"train": [str(path)]}), tmp_path, plugins, "run.name=refused")
    assert content is None or isinstance(caught.value, DataError)
    assert not (tmp_path / "refused").exists()


OBSERVER = """
from ampo_registry import hookimpl

@hookimpl
def ampo_run_started(context):
    (context.folder / "seen").write_text(f"started {context.job} {context.seed}\\n")

@hookimpl
def ampo_step_finished(report, context):
    with (context.folder / "seen").open("a") as file:
        file.write(f"{report.step} {len(report.groups)} {'policy/loss' in report.metrics}\\n")
    raise RuntimeError("an observer's own fault")

@hookimpl
def ampo_run_finished(context):
    with (context.folder / "seen").open("a") as file:
        file.write("finished\\n")
"""


def test_the_command_line_trains_and_tells_observers(world: Path, student: Path, tmp_path: Path, forge: Forge) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(train(world, student)), encoding="utf-8")
    (tmp_path / "seeing_plugin.py").write_text(OBSERVER, encoding="utf-8")
    command = [path, "training.steps=2", f"run.dir={tmp_path}", "--plugin", tmp_path / "seeing_plugin.py"]
    done = forge.run(*command)
    assert done.returncode == 0, done.stderr
    assert "train 2/2" in done.stdout
    assert (tmp_path / "run/seen").read_text("utf-8").splitlines() == [
        "started train 3",
        "1 6 True",
        "2 6 True",
        "finished",
    ]
    assert done.stderr.count("an observer's own fault") == 1
    again = forge.run(*command)
    assert again.returncode == 0
    assert "run is finished already; its output is" in again.stdout


LISTENER = """
import json
from ampo_registry import hookimpl

@hookimpl
def ampo_run_finished(context, warnings):
    (context.folder / "warnings").write_text(json.dumps([[w.kind, w.first, w.last, w.steps] for w in warnings]))
"""
SMALL = ("training.questions_per_batch=2", "training.questions_per_minibatch=2", "training.steps=5")


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Plugins:
    """All plugins, and one that writes down what a finished run warns of."""
    plugin = tmp_path_factory.mktemp("plugin") / "listening_plugin.py"
    plugin.write_text(LISTENER, encoding="utf-8")
    return discover([plugin])


def warned(config: Mapping[str, Any], folder: Path, listening: Plugins, *overrides: str) -> tuple[list[list[Any]], str]:
    """What observers were told of a small run, and the screen."""
    policy, screen = run(config, folder, listening, *SMALL, *overrides)
    found = json.loads((policy.parents[2] / "warnings").read_text("utf-8"))
    page = (policy.parents[2] / "report.html").read_text("utf-8")
    said = [line for line in screen.splitlines() if line.startswith("warning: ")]
    assert all(html.escape(line.removeprefix("warning: ")) in page for line in said[len(said) - len(found) :])
    assert ('role="note"' in page) == bool(found)
    return found, screen


def test_a_run_whose_responses_and_teachers_are_all_too_long_says_so(
    world: Path, student: Path, listening: Plugins, tmp_path: Path
) -> None:
    masked = {"objective": {"on_policy": {"mask_truncated": True}}}
    found, screen = warned(train(world, student, **masked), tmp_path, listening, "rollout.max_response_tokens=3")
    assert found == [["cut_off", 1, 5, 5], ["no_guidance", 1, 5, 5], ["no_tokens", 1, 5, 5]]
    cut = "warning: steps 1 to 5: every response was cut off at rollout.max_response_tokens = 3; look at"
    assert screen.count(cut) == 2  # when it begins, and at the end
    assert screen.rindex(cut) > screen.index("budget: ")
    assert "their teacher answers were left out: " in screen
    assert "0 tokens were trained: mask_truncated leaves out what was cut off" in screen


def test_a_policy_that_a_learning_rate_of_1_has_destroyed_is_said_to_have_collapsed(
    world: Path, student: Path, listening: Plugins, tmp_path: Path
) -> None:
    found, screen = warned(train(world, student), tmp_path, listening, "training.learning_rate=1.0", "training.steps=8")
    assert "collapsed" in [kind for kind, *_ in found]
    assert "no response is right, learning rate 1; look at training.learning_rate" in screen


def test_a_run_without_answer_tags_says_so_of_students_and_teachers(
    world: Path, student: Path, listening: Plugins, tmp_path: Path
) -> None:
    rows = pq.read_table(world / "train.parquet").to_pylist()
    for row in rows:
        content = f"we have {row['reward_model']['ground_truth']}"
        row["target_lst"] = [{"role": "assistant", "content": content, "source": "plain"}]
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = train(world, student, data={"train": [str(tmp_path / "plain.jsonl")]})
    config["model"]["stop"] = ["<answer>"]  # the student stops where its answer would begin
    found, screen = warned(config, tmp_path, listening)
    assert [kind for kind, *_ in found] == ["no_format", "unscorable"]
    assert "each has the score 0, and guidance.selector still chooses" in screen
    assert {line["guidance/score_mean"] for line in metrics_of(tmp_path / "run/checkpoints/step-000005/policy")} == {
        0.0
    }


def test_a_run_that_learns_is_told_nothing(world: Path, student: Path, listening: Plugins, tmp_path: Path) -> None:
    found, screen = warned(train(world, student), tmp_path, listening)
    assert found == []
    assert "warning" not in screen


TOGETHER: dict[str, dict[str, Any]] = {
    "every sequence": {"objective": {"entropy_coefficient": 0.01, "kl": {"coefficient": 0.01}}},
    "few sequences": {
        "objective": {
            "entropy_coefficient": 0.0,
            "advantage": {"type": "group_normalized", "zero_without_correct": True},
        }
    },
    "sampled ahead": {"rollout": {"ahead": 1}},
    "prefix under ZeRO 3": {
        "guidance": {"intervention": {"type": "prefix", "share": {"type": "linear", "start": 0.7, "end": 0.2}}},
        "deepspeed": {"zero_stage": 3},
    },
    "distilled": {
        "judges": {"twin": {"type": "transformers"}},
        "objective": {"advantage": {"type": "distill", "judge": "twin", "reward_weight": 1.0}},
    },
}


@pytest.fixture(scope="module")
def of_two_ranks(world: Path, student: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Case of TOGETHER -> the policy that two ranks have trained with it; they start once for all."""
    folder = tmp_path_factory.mktemp("two")
    configs = []
    for number, blocks in enumerate(TOGETHER.values()):
        config = train(world, student, **{"deepspeed": {"zero_stage": 2}, "resources": {"devices": 2}, **blocks})
        config["run"] |= {"dir": str(folder), "name": str(number)}
        configs.append(folder / f"{number}.yaml")
        configs[-1].write_text(yaml.safe_dump(config), encoding="utf-8")
    in_two_ranks(*([config] for config in configs))
    return {name: folder / f"{number}/checkpoints/step-000003/policy" for number, name in enumerate(TOGETHER)}


@pytest.mark.parametrize("case", TOGETHER)
def test_two_ranks_train_as_one_does(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path, case: str, of_two_ranks: dict[str, Path]
) -> None:
    one, _ = run(train(world, student, **TOGETHER[case]), tmp_path / "one", plugins)
    two = of_two_ranks[case]
    alone, together = metrics_of(one), metrics_of(two)
    assert any(line["guidance/replaced"] > 0 for line in alone)
    for mine, other in zip(together, alone, strict=True):
        expected = {name: value for name, value in other.items() if name != "tokens/padding"}
        found = {name: mine[name] for name in expected}
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    from transformers import AutoModelForCausalLM

    weights = [AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-3, msg=name)
    samples = [(path.parents[2] / "samples.jsonl").read_text("utf-8") for path in (one, two)]
    assert [json.loads(line)["text"] for line in samples[0].splitlines()] == [
        json.loads(line)["text"] for line in samples[1].splitlines()
    ]


def test_a_batch_sampled_ahead_is_one_version_old_and_the_same_every_time(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path
) -> None:
    config = train(world, student, rollout={"ahead": 1})
    once, _ = run(config, tmp_path / "a", plugins)
    again, _ = run(config, tmp_path / "b", plugins)
    behind, _ = run(train(world, student), tmp_path / "c", plugins)
    assert metrics_of(once) == metrics_of(again)
    assert [line["rollout/staleness"] for line in metrics_of(once)] == [0.0, 1.0, 1.0]
    assert [line["rollout/staleness"] for line in metrics_of(behind)] == [0.0, 0.0, 0.0]
    assert [line.get("policy/probe_logprob_gap", 1.0) < 1e-4 for line in metrics_of(once)] == [True, False, False]
    assert (
        metrics_of(once)[1]["policy/rollout_logprob_gap"] > 1e-3 > metrics_of(behind)[1]["policy/rollout_logprob_gap"]
    )


def test_a_sampler_that_differs_from_the_learner_stops_the_run(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"step 1: the rollout's log-probs differ from the learner's by .* 1e-30 allows"):
        run(train(world, student), tmp_path, plugins, "rollout.logprob_gap_limit=1e-30")
    run(train(world, student), tmp_path / "b", plugins, "rollout.logprob_gap_limit=0.01")


STUCK = """
from typing import Literal
from ampo_plugins.rollouts.transformers.spec import TransformersRollout
from ampo_registry import hookimpl

class Stuck(TransformersRollout):
    \"\"\"Takes no weights over after the start.\"\"\"
    type: Literal["stuck"] = "stuck"

    def build(self, context):
        engine = super().build(context)
        load = engine.load_weights
        def once(weights, policy_version):
            load(weights, policy_version) if policy_version == 0 else list(weights)
            engine.policy_version = policy_version
        engine.load_weights = once
        return engine

@hookimpl
def ampo_specs():
    return [Stuck]
"""


@pytest.mark.parametrize(("ahead", "step"), [(0, 2), (1, 1)])
def test_a_sampler_that_misses_a_sync_stops_the_run(
    ahead: int, step: int, world: Path, student: Path, tmp_path: Path
) -> None:
    plugin = tmp_path / f"stuck_sampler_{ahead}.py"
    plugin.write_text(STUCK, encoding="utf-8")
    config = train(world, student, rollout={"type": "stuck", "ahead": ahead, "logprob_gap_limit": 1e-3})
    with pytest.raises(RunError, match=f"step {step}: the rollout's log-probs differ"):
        run(config, tmp_path, discover([plugin]))


def test_a_batch_without_signal_is_no_update_and_the_learning_rate_moves_on(
    world: Path, student: Path, plugins: Plugins, tmp_path: Path
) -> None:
    drop = {"group_filter": {"drop": ["all_wrong", "all_correct"]}}
    config = train(world, student, objective=drop, guidance=None, training={"schedule": "linear", "warmup_steps": 2})
    config["data"]["train"] = [str(world / "train.parquet")]
    config["model"]["path"] = str(world / "model")  # random weights: every group is all wrong
    policy, screen = run(config, tmp_path, plugins)
    lines = metrics_of(policy)
    assert [line["groups/trained"] for line in lines] == [0.0, 0.0, 0.0]
    assert all("policy/grad_norm" not in line and line["tokens/trained"] == 0.0 for line in lines)
    assert [line["policy/learning_rate"] for line in lines] == pytest.approx([0.5e-3, 1e-3, 0.5e-3])
    assert "step 2: none of 6 groups has a signal, so nothing was trained" in screen
