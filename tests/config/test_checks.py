"""Rules between keys."""

import json
import re
from pathlib import Path

import pytest
from ampo_registry.discovery import discover
from ampo_registry.errors import ConfigError

from ampo_core.config import metric_names
from ampo_core.config.jobs import TrainJob
from ampo_core.config.load import load_config

ERRORS = {
    "threshold above": (
        "guidance.threshold=0.95",
        "guidance.threshold: found τ = 0.95 with λ = reward.format_weight = 0.1",
    ),
    "threshold at λ": ("guidance.threshold=0.1", "more than 0.1, at most 0.9"),
    "λ above": ("reward={type: math_verify, format_weight: 0.7}", "guidance.threshold: found τ = 0.6 with λ"),
    "replacements": ("guidance.replacements=5", "guidance.replacements: found 5, more than the 4 rollouts of a group"),
    "mini-batch": ("training.questions_per_minibatch=3", "3 does not divide questions_per_batch = 4"),
    "mini-batch larger": ("training.questions_per_minibatch=8", "8 does not divide questions_per_batch = 4"),
    "tokens": ("training.tokens_per_microbatch=47", "found 47; one sequence may have 48 tokens"),
    "weights": ("data.weights=[1, 2]", "data.weights: found 2 weight(s) for 1 file(s)"),
    "pass_at": (
        "evaluation={sets: {a: {path: x, samples: 4, pass_at: [1, 8]}}}",
        "evaluation.sets.a.pass_at: pass@8 needs",
    ),
    "clip": ("objective.on_policy.loss.low=1.5", "objective.on_policy.loss.low: found 1.5, expected a number"),
    "kl estimator": ("objective.kl={estimator: k1}", "objective.kl.estimator: k1 estimates the KL without bias, but"),
    "dual clip": ("objective.on_policy.loss.dual=1.1", "objective.on_policy.loss: dual is 1.1, must be greater"),
    "penalty": ("reward.overlong_penalty.buffer=33", "reward.overlong_penalty.buffer: found 33, more than"),
    "best": ("checkpoint.best=eval/a/avg@3", "this job has no metric eval/a/avg@3; did you mean eval/a/avg@4?"),
    "best, misspelt": ("checkpoint.best=reward/acuracy", "no metric reward/acuracy; did you mean reward/accuracy?"),
    "best of no family": ("checkpoint.best=accuracy", "this job has no metric accuracy"),
    "set with a slash": ("evaluation={sets: {a/b: {path: x}}}", "evaluation.sets.a/b: found the name 'a/b'"),
    "offloaded states without ZeRO": (
        "deepspeed={zero_stage: 0, offload_optimizer: cpu}",
        "deepspeed.offload_optimizer: found cpu with zero_stage 0",
    ),
    "offloaded weights without ZeRO 3": (
        "deepspeed={zero_stage: 2, offload_parameters: cpu}",
        "deepspeed.offload_parameters: found cpu with zero_stage 2",
    ),
    "bfloat16 without ZeRO": ("model.dtype=bfloat16", "deepspeed.zero_stage: found 0 with model.dtype bfloat16"),
    "dropout of adapters": ("model.lora={dropout: 0.1}", "model.lora.dropout: found 0.1, must be 0 in a train job"),
    "no adapters": ("model.lora={target_modules: []}", "model.lora.target_modules: found [], expected all-linear or a"),
    "room for less than a response": (
        "rollout={type: vllm, group_size: 4, max_response_tokens: 32, max_model_len: 40}",
        "rollout.max_model_len: found 40; 48 tokens may be needed: data.max_prompt_tokens 16 + rollout.max_response_",
    ),
    "set named macro": ("evaluation={sets: {macro: {path: x}}}", "macro is the name of the mean over all sets"),
}


@pytest.mark.parametrize(("override", "said"), ERRORS.values(), ids=ERRORS.keys())
def test_errors(load, override, said):
    extra = "evaluation={sets: {a: {path: train.parquet, samples: 4}}}"
    overrides = [extra, override] if override.startswith("checkpoint") else [override]
    with pytest.raises(ConfigError) as error:
        load("", *overrides)
    assert said in str(error.value)


SUMS = {
    "a right one below τ": ("{parts: [{reward: math_verify, weight: 0.3}]}", 0.5, "more than 0.03, at most 0.27"),
    "the default τ": (
        "{parts: [{reward: math_verify, weight: 0.3}]}",
        None,
        "earn 0.03 and a right one no more than 0.27",
    ),
    "in between": ("{parts: [{reward: math_verify, weight: 0.3}]}", 0.2, None),
    "all decide": ("{parts: [{reward: math_verify, decides: true}, {reward: choice, decides: true}]}", 1.5, None),
    "all decide, τ too low": (
        "{parts: [{reward: math_verify, decides: true}, {reward: choice, decides: true}]}",
        1.1,
        "more than 1.1, at most 1.8",
    ),
    "a part that does not decide": (
        "{parts: [math_verify, {reward: choice, weight: 0.2}]}".replace("[math_verify", "[{reward: math_verify}"),
        0.3,
        "more than 0.3, at most 0.9",
    ),
    "no τ": ("{parts: [{reward: math_verify}, {reward: choice}]}", 0.6, "no τ tells them apart"),
    "subtracted": (
        "{parts: [{reward: math_verify}, {reward: choice, weight: -0.5}]}",
        0.5,
        "more than 0.1, at most 0.4",
    ),
    "λ of the sum": ("{format_weight: 0.2, parts: [{reward: math_verify}]}", 0.8, "more than 0.28, at most 0.72"),
}


@pytest.mark.parametrize(("reward", "threshold", "said"), SUMS.values(), ids=SUMS.keys())
def test_the_threshold_of_a_sum_lies_between_what_its_parts_earn(load, reward, threshold, said):
    overrides = ["reward=" + reward.replace("{", "{type: sum, ", 1)]
    overrides += [] if threshold is None else [f"guidance.threshold={threshold}"]
    if said is None:
        assert load("", *overrides).blockers == ()
        return
    with pytest.raises(ConfigError) as error:
        load("", *overrides)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        "guidance.threshold=0.9",
        "guidance.threshold=0.11",
        "guidance.replacements=4",
        "training.tokens_per_microbatch=48",
        "training.questions_per_minibatch=4",
        "data.weights=[3]",
        "evaluation={sets: {a: {path: train.parquet, samples: 8, pass_at: [1, 8]}}}",
    ],
)
def test_the_limits_themselves_are_allowed(load, override):
    assert load("", override).blockers == ()


@pytest.mark.parametrize("short", ["avg@4", "pass@2", "length_mean", "truncated", "entropy", "timeouts", "errors"])
def test_every_metric_of_a_set_can_be_the_best(load, short):
    text = "evaluation: {sets: {a: {path: train.parquet, samples: 4, pass_at: [2]}}}\n"
    assert load(text, f"checkpoint.best=eval/a/{short}").warnings == ()


@pytest.mark.parametrize(
    "best", ["reward/accuracy", "guidance/answers/long", "guidance/teacher/long", "policy/entropy"]
)
def test_a_metric_of_training_can_be_the_best(load, best):
    assert load("", f"checkpoint.best={best}").warnings == ()


@pytest.mark.parametrize("best", ["guidance/triggered", "guidance/teacher/long", "guidance/answers/long"])
def test_without_guidance_its_metrics_cannot(load, best):
    with pytest.raises(ConfigError, match=r"checkpoint\.best: this job has no metric guidance/"):
        load("guidance: null\n", f"checkpoint.best={best}")


def test_a_metric_of_an_evaluation_that_there_is_not(load):
    with pytest.raises(ConfigError, match=r"no metric eval/a/avg@4 without an evaluation block"):
        load("", "checkpoint.best=eval/a/avg@4")


def test_sft_has_no_best_checkpoint_by_default(load):
    assert load(SFT + "checkpoint: {every: 5}\n").job.checkpoint.best is None


def test_guidance_rules_do_not_bind_grpo(load):
    assert load("guidance: null\nreward: {type: math_verify, format_weight: 0.7}\n").job.guidance is None


def test_the_default_of_best_is_not_warned_of_in_a_resolved_config_either(load):
    assert load("evaluation: null\n", "checkpoint.best=eval/macro/avg").warnings == load("evaluation: null\n").warnings


def test_a_broken_default_is_said_to_be_the_default(load):
    with pytest.raises(ConfigError, match=r"guidance\.threshold: .* \(the default\)"):
        load("", "reward.format_weight=0.5")


WARNINGS = {
    "unit over the batch": ("objective.scope=batch", "objective.off_policy.weight: unit with scope batch"),
    "clip on the shaped ratio": ("objective.off_policy.loss.clip=[0.2, 0.2]", "can only bind for negative advantages"),
    "recorded": ("objective.off_policy.loss.behaviour_policy=recorded", "needs the teachers' per-token log-probs"),
    "constant over the batch": (
        "objective={scope: batch, off_policy: {aggregator: {type: constant, per_sequence: true}}}",
        "objective.off_policy.weight: unit with scope batch",
    ),
    "reward of a set": (
        "evaluation={sets: {a: {path: train.parquet, reward: {type: math_verify, format_weight: 0.2}}}}",
        "evaluation.sets.a.reward.format_weight: an evaluation counts correct responses",
    ),
    "warm-up": ("training.warmup_steps=1000", "the whole run of 1000 optimizer steps is warm-up"),
    "a term without samples": (
        "objective.auxiliary={sft: {weight: 0.1}}",
        "objective.auxiliary.sft.samples: found intervention, and guidance.intervention (replace) names no term 'sft'",
    ),
}


@pytest.mark.parametrize(("override", "said"), WARNINGS.values(), ids=WARNINGS.keys())
def test_warnings(load, override, said):
    loaded = load("", override)
    assert loaded.blockers == ()
    assert len(loaded.warnings) == 1
    assert said in loaded.warnings[0]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["objective.scope=batch", "guidance=null"],
        ["objective.scope=batch", "objective.off_policy.weight=proportional"],
        ["objective.scope=batch", "objective.off_policy.aggregator=constant"],
    ],
)
def test_no_warning(load, overrides):
    assert load("", *overrides).warnings == ()


SFT = "job: sft\nmodel: {path: model, dtype: float32}\ndata: {train: [train.parquet]}\ndeepspeed: {zero_stage: 0}\n"
EVALUATE = """job: evaluate
models: {start: {path: model}}
rollout: transformers
evaluation: {sets: {a: {path: train.parquet, samples: 2}}}
"""
PREPARE = "job: prepare\ntask: labelled_arithmetic\n"
SUITE = "job: suite\nruns: {a: base.yaml}\ntables: {t: {rows: [a]}}\n"
PIPELINE = "job: pipeline\nstages:\n- {name: a, config: base.yaml}\n- {name: %s, config: base.yaml, overrides: %s}\n"


@pytest.mark.parametrize(
    ("text", "override", "said"),
    [
        (SFT, "data.max_tokens=20000", "training.tokens_per_microbatch: found 18432"),
        (SFT, "checkpoint.best=policy/los", "no metric policy/los; did you mean policy/loss?"),
        (EVALUATE, "models={a/b: {path: model}}", "models.a/b: found the name 'a/b'"),
        (EVALUATE, "models.start.lora={}", "models.start.lora: no such key"),
        (EVALUATE, "models.start.gradient_checkpointing=true", "models.start.gradient_checkpointing: no such key"),
        (EVALUATE, "evaluation.every=5", "evaluation.every: no such key"),
        (EVALUATE, "evaluation.at_start=true", "evaluation.at_start: no such key"),
        (EVALUATE, "comparison.baseline=stat", "no model is named 'stat'; did you mean start?"),
        (EVALUATE, "evaluation.sets.a.pass_at=[4]", "pass@4 needs at least 4 samples"),
        (PIPELINE % ("a", "{}"), "run.seed=0", "stages.1.name: 'a' is taken by an earlier one"),
        (
            PIPELINE % ("b", "{run.name: x}"),
            "run.seed=0",
            "stages.1.overrides.run.name: run.name is set by the pipeline",
        ),
        (
            PIPELINE % ("b", "{run: {dir: x}}"),
            "run.seed=0",
            "stages.1.overrides.run.dir: run.dir is set by the pipeline",
        ),
        (
            PIPELINE % ("b", "{}"),
            "stages.0.overrides.run.name=x",
            "stages.0.overrides.run.name: run.name is set by the",
        ),
        (PIPELINE % ("done", "{}"), "run.seed=0", "stages.1.name: 'done' is the name of a file of the pipeline's own"),
        (SUITE, "tables.t.rows=[a, a]", "tables.t.rows.1: 'a' stands twice"),
        (SUITE, "only=[t, t]", "only.1: 't' stands twice"),
        (SUITE, "stages=[{name: s, config: base.yaml, overrides: {run.dir: x}}]", "run.dir is set by the suite"),
        (PREPARE, "task={type: labelled_arithmetic, head_size: 7}", "found 7, expected a whole number > 0 and a multi"),
        (
            EVALUATE,
            "rollout={type: vllm, max_model_len: 8192}",
            "rollout.max_model_len: found 8192; 8193 tokens may be",
        ),
    ],
)
def test_errors_of_other_jobs(load, text, override, said):
    with pytest.raises(ConfigError) as error:
        load(text, override)
    assert said in str(error.value)


def test_other_jobs_are_fine_without_them(load):
    for text in (SFT, EVALUATE, PREPARE, PIPELINE % ("b", "{}")):
        loaded = load(text)
        assert (loaded.warnings, loaded.blockers) == ((), ())


@pytest.mark.parametrize(
    ("text", "override", "key"),
    [
        (EVALUATE, "rollout.group_size=8", "rollout.group_size"),
        (EVALUATE, "rollout.temperature=1.0", "rollout.temperature"),
        (EVALUATE, "reward.overlong_penalty={buffer: 4}", "reward.overlong_penalty"),
        (EVALUATE, "reward.repetition_penalty={}", "reward.repetition_penalty"),
        (EVALUATE, "reward.format_weight=0.1", "reward.format_weight"),
        (PREPARE, "reward.repetition_penalty={}", "reward.repetition_penalty"),
    ],
)
def test_an_option_that_the_job_does_not_read_is_warned_about(load, text, override, key):
    (warning,) = load(text, override).warnings
    assert f": {key}: " in warning


def test_a_third_partys_constant_aggregator_needs_no_warning(load, plugins):
    from typing import Literal

    from ampo_registry import AggregatorSpec
    from ampo_registry.catalog import Catalog

    class Plain(AggregatorSpec):
        type: Literal["plain"] = "plain"

        def token_weights(self, lengths, totals):
            return lengths * 0.0 + 1.0

    class PlainSum(Plain):
        type: Literal["plain_sum"] = "plain_sum"

        def depends_on_count(self):
            return False

    def findings(aggregator):
        catalog = Catalog()
        for entry in plugins.catalog.entries():
            catalog.add(entry.spec, entry.distribution, entry.version, entry.plugin)
        catalog.add(type(aggregator), "third-party", "1")
        data = dict(load("", "objective.scope=batch").data)
        off_policy = {**data["objective"]["off_policy"], "aggregator": aggregator.type}
        data["objective"] = {**data["objective"], "off_policy": off_policy}
        job = TrainJob.model_validate_json(json.dumps(data), context={"catalog": catalog})
        return [finding.text for finding in job.findings() if "unit with scope batch" in finding.text]

    assert len(findings(Plain())) == 1
    assert findings(PlainSum()) == []


def test_stages_are_checked_with_their_overrides(load):
    loaded = load(PIPELINE % ("b", '{model.path: "${stages.a.out}", training.warmup_steps: 1000}'))
    assert loaded.blockers == ()
    assert len(loaded.warnings) == 1
    assert "c.yaml:4 (overrides): training.warmup_steps" in loaded.warnings[0]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("{training.stepz: 3}", "c.yaml:4 (overrides): training.stepz: no such key; did you mean steps?"),
        ('{model.path: "${stages.c.out}"}', "${stages.c.out}: no earlier stage is named 'c'"),
        ('{model.path: "${stages.b.out}"}', "no earlier stage is named 'b'"),
        ('{model.path: "${stage.a}"}', "${stage.a} is not of the form ${stages.NAME.out}"),
    ],
)
def test_a_wrong_stage_is_refused(load, overrides, said):
    with pytest.raises(ConfigError) as error:
        load(PIPELINE % ("b", overrides))
    assert said in str(error.value)


def test_a_pipeline_cannot_contain_itself(load):
    with pytest.raises(ConfigError, match="a stage cannot be a pipeline"):
        load("job: pipeline\nstages: [{name: a, config: c.yaml}]\n")


def test_stages_of_a_parent_are_relative_to_the_parent(load, folder):
    load(PIPELINE % ("b", "{}"))
    (folder / "sub").mkdir()
    (folder / "sub" / "child.yaml").write_text("extends: ../c.yaml\n")
    from ampo_core.config.load import load_config

    assert load_config("sub/child.yaml").job.stages[0].config == str(folder / "base.yaml")


FAMILIES = "rollout|reward|guidance|groups|response|policy|verifier|tokens|time"


def test_the_names_of_metrics_are_those_that_the_code_logs():
    own = Path(metric_names.__file__)
    sources = {path.name: path.read_text("utf-8") for path in own.parents[1].rglob("*.py") if path != own}
    logged = {name for text in sources.values() for name in re.findall(rf'"((?:{FAMILIES})/\w+)"', text)}
    logged |= {f"time/{part}_s" for part in re.findall(r'watch\.measure\("(\w+)"\)', sources["train.py"])}
    known = {*metric_names.TRAIN, *metric_names.GUIDANCE, *metric_names.SFT}
    assert logged == known - {metric_names.ANSWERS, metric_names.TEACHER}
    assert {name for name in logged if f'"{name}": ' in sources["sft.py"]} == set(metric_names.SFT)


def test_what_resamples_cannot_sample_ahead(load):
    with pytest.raises(ConfigError, match=r"rollout\.ahead: found 1 with objective\.group_filter\.resample"):
        load("", "rollout.ahead=1", "objective.group_filter={drop: [all_correct], resample: true}")


def test_a_rollout_that_does_not_fit_the_ranks_is_refused(load):
    rollout = "rollout={type: vllm, group_size: 4, max_response_tokens: 32, tensor_parallel: 2}"
    with pytest.raises(ConfigError, match="rollout: tensor_parallel 2 does not divide 3 ranks"):
        load("", rollout, "resources.devices=3")
    assert load("", rollout, "resources.devices=2").job.rollout.tensor_parallel == 2


def test_a_type_on_the_command_line_counts_before_its_options(load):
    for overrides in (["rollout.ahead=1", "rollout.type=vllm"], ["rollout.type=vllm", "rollout.ahead=1"]):
        rollout = load("", *overrides, "rollout.max_response_tokens=32", "rollout.group_size=4").job.rollout
        assert (rollout.type, rollout.ahead) == ("vllm", 1)


def test_importance_weights_are_said_to_rest_when_sampling_ahead(load):
    loaded = load("", "rollout.ahead=1", "objective.on_policy.importance_cap=2")
    assert any("objective.on_policy.importance_cap: does nothing with rollout.ahead 1" in w for w in loaded.warnings)


def write_weights(folder, shapes):
    """A safetensors file of which only the header is there."""
    header = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)


@pytest.mark.parametrize("text", ["", SFT])
def test_adapters_need_modules_that_the_model_has(load, folder, text):
    layer = "model.layers.0"
    shapes = {
        f"{layer}.self_attn.q_proj.weight": [8, 8],
        f"{layer}.input_layernorm.weight": [8],
        "lm_head.qweight": [1],
    }
    write_weights(folder / "model", shapes)
    for fine in ("all-linear", "[q_proj]", "[self_attn.q_proj, lm_head]"):
        assert load(text, f"model.lora={{target_modules: {fine}}}").blockers == ()
    for wrong, said in (
        (
            "[q_proj, nope]",
            "model.lora.target_modules.1: the model model has no matrix named 'nope' (allowed: lm_head, q",
        ),
        ("[q_porj]", "model.lora.target_modules.0: the model model has no matrix named 'q_porj'; did you mean q_proj?"),
        ("[input_layernorm]", "has no matrix named 'input_layernorm'"),
        ("[proj]", "has no matrix named 'proj'"),
    ):
        with pytest.raises(ConfigError) as error:
            load(text, f"model.lora={{target_modules: {wrong}}}")
        assert said in str(error.value)


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 40, (4).to_bytes(8, "little") + b"[1]x"])
def test_weights_that_cannot_be_read_refuse_no_adapters(load, folder, content):
    (folder / "model" / "model.safetensors").write_bytes(content)
    assert load("", "model.lora={target_modules: [nope]}").blockers == ()


EXAMPLES = Path(__file__).parents[2] / "plugins/examples"
ROUTER, CHORD = (EXAMPLES / f"ampo-{name}/ampo_{name}/__init__.py" for name in ("router", "chord"))


def test_a_term_that_an_intervention_labels_and_nothing_declares_is_refused_before_the_run(folder):
    text = "extends: base.yaml\nguidance:\n  intervention: {type: router, term: stf}\n"
    Path("c.yaml").write_text(text + "objective: {auxiliary: {sft: {}}}\n", encoding="utf-8")
    plugins = discover([ROUTER])
    with pytest.raises(ConfigError) as error:
        load_config("c.yaml", (), plugins)
    said = "c.yaml:3: guidance.intervention: labels samples with the term 'stf', which objective.auxiliary does not"
    assert f"{said} declare; did you mean 'sft'?\ndeclared: sft" in str(error.value)
    assert not load_config("c.yaml", ["guidance.intervention.term=sft"], plugins).warnings


def test_what_a_loss_measures_can_be_the_best_under_the_name_of_its_term(folder):
    text = "extends: base.yaml\nobjective: {auxiliary: {sft: {loss: chord, samples: guidance}}}\n"
    Path("c.yaml").write_text(text, encoding="utf-8")
    plugins = discover([CHORD])
    for best in ("policy/phi/sft", "policy/loss/sft"):
        assert not load_config("c.yaml", [f"checkpoint.best={best}"], plugins).warnings
    for best in ("phi", "policy/phi"):
        with pytest.raises(ConfigError, match=f"no metric {best}"):
            load_config("c.yaml", [f"checkpoint.best={best}"], plugins)


@pytest.mark.parametrize("job", ["extends: base.yaml\n", SFT], ids=["train", "sft"])
def test_what_an_observer_may_measure_can_be_the_best_with_a_warning(job, folder, plugins):
    Path("c.yaml").write_text(job, encoding="utf-8")
    (warning,) = load_config("c.yaml", ["checkpoint.best=mine/share"], plugins).warnings
    assert "no component says that it logs mine/share; unless an observer does, no checkpoint is best" in str(warning)
