"""Rules between keys."""

import pytest
from ampo_registry.errors import ConfigError

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
    "ranks": ("resources.devices=3", "2 does not divide over 3 ranks"),
    "tokens": ("training.tokens_per_microbatch=47", "found 47; one sequence may have 48 tokens"),
    "weights": ("data.weights=[1, 2]", "data.weights: found 2 weight(s) for 1 file(s)"),
    "pass_at": (
        "evaluation={sets: {a: {path: x, samples: 4, pass_at: [1, 8]}}}",
        "evaluation.sets.a.pass_at: pass@8 needs",
    ),
    "clip": ("objective.on_policy.clip=[1.5, 0.2]", "objective.on_policy.clip: found 1.5 as the lower width"),
    "dual clip": ("objective.on_policy.dual_clip=1.1", "objective.on_policy.dual_clip: found 1.1"),
    "penalty": ("reward.overlong_penalty.buffer=33", "reward.overlong_penalty.buffer: found 33, more than"),
    "best": ("checkpoint.best=eval/a/avg@3", "evaluation gives no metric eval/a/avg@3; did you mean eval/a/avg@4?"),
}


@pytest.mark.parametrize(("override", "said"), ERRORS.values(), ids=ERRORS.keys())
def test_errors(load, override, said):
    extra = "evaluation={sets: {a: {path: train.parquet, samples: 4}}}"
    overrides = [extra, override] if override.startswith("checkpoint") else [override]
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


def test_guidance_rules_do_not_bind_grpo(load):
    assert load("guidance: null\nreward: {type: math_verify, format_weight: 0.7}\n").job.guidance is None


def test_a_broken_default_is_said_to_be_the_default(load):
    with pytest.raises(ConfigError, match=r"guidance\.threshold: .* \(the default\)"):
        load("", "reward.format_weight=0.5")


WARNINGS = {
    "unit over the batch": ("objective.scope=batch", "objective.off_policy.weight: unit with scope batch"),
    "clip on the shaped ratio": ("objective.off_policy.clip=[0.2, 0.2]", "can only bind for negative advantages"),
    "recorded": ("objective.off_policy.behaviour=recorded", "needs the teachers' per-token log-probs"),
    "warm-up": ("training.warmup_steps=1000", "the whole run of 1000 optimizer steps is warm-up"),
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
PIPELINE = "job: pipeline\nstages:\n- {name: a, config: base.yaml}\n- {name: %s, config: base.yaml, overrides: %s}\n"


@pytest.mark.parametrize(
    ("text", "override", "said"),
    [
        (SFT, "data.max_tokens=20000", "training.tokens_per_microbatch: found 18432"),
        (SFT, "resources.devices=3", "8 does not divide over 3 ranks"),
        (EVALUATE, "comparison.baseline=stat", "no model is named 'stat'; did you mean start?"),
        (EVALUATE, "evaluation.sets.a.pass_at=[4]", "pass@4 needs at least 4 samples"),
        (PIPELINE % ("a", "{}"), "run.seed=0", "stages.1.name: 'a' is taken by an earlier one"),
    ],
)
def test_errors_of_other_jobs(load, text, override, said):
    with pytest.raises(ConfigError) as error:
        load(text, override)
    assert said in str(error.value)


def test_other_jobs_are_fine_without_them(load):
    for text in (SFT, EVALUATE, PIPELINE % ("b", "{}")):
        loaded = load(text)
        assert (loaded.warnings, loaded.blockers) == ((), ())


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
