"""Format, reward, verdict and repetition against the released program."""

from pathlib import Path

import pytest
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import GradeRequest, NgramPenalty
from ampo_registry.discovery import discover

from ampo_core.config.load import load_config
from ampo_core.grading.penalties import repetition_penalty

PRESET = Path(__file__).parents[2] / "configs" / "presets" / "released.yaml"

# "50%" for 0.5: the released script looks for the number in a closing sentence, where the percent sign is lost;
# here the answer is read as it stands, and 50% is 0.5.
DIFFERENT_VERDICTS = {("<answer>50%</answer>", "0.5"): True}


def test_format_reward(golden):
    cases = golden("format_reward")["cases"]
    assert [float(MathVerify().formatted(case["text"])) for case in cases] == [case["R1_nothink"] for case in cases]


def test_reward_manager(golden):
    """λ = -1 (accuracy only where the format is right) is no feature here."""
    cases = [case for case in golden("reward_manager")["cases"] if case["format_coefficient"] >= 0]
    assert {case["format_coefficient"] for case in cases} == {0.0, 0.1, 0.5}
    for case in cases:
        spec = MathVerify(format_weight=case["format_coefficient"])
        grades = spec.grade([GradeRequest(text, case["ground_truth"]) for text in case["texts"]])
        assert [grade.reward for grade in grades] == pytest.approx(case["scores"], abs=1e-7)
        assert [float(grade.formatted) for grade in grades] == case["format"]


# What the defaults read beyond that: the answer in a sentence, inside the tags.
DEFAULTS = {**DIFFERENT_VERDICTS, ("<answer>The answer is 42</answer>", "42"): True}


def differing(spec, cases):
    """The verdicts that are not the recorded ones."""
    grades = spec.grade([GradeRequest(case["output"], case["ground_truth"]) for case in cases])
    return {
        (case["output"], case["ground_truth"]): grade.correct
        for case, grade in zip(cases, grades, strict=True)
        if grade.correct != case["eval_script"]
    }


def test_verifiers(golden):
    cases = golden("verifiers")["cases"]
    assert len(cases) == 31
    assert differing(load_config(PRESET, [], discover()).job.reward, cases) == DIFFERENT_VERDICTS
    assert differing(MathVerify(), cases) == DEFAULTS


def test_the_preset_reads_answers_as_math_verify_alone():
    """The four options are off, and no verdict is other than that of the bare library."""
    from math_verify import parse, verify

    released = load_config(PRESET, [], discover()).job.reward
    options = ("normalise", "exact_numbers", "one_answer", "skip_thoughts")
    assert [getattr(released, name) for name in options] == [False] * 4
    assert released.untagged == "whole"
    answers = ["42", "42.", "41 = 42", "50%", "42.0000001", "4.2e1", "\\frac{84}{2}", "**42**"]
    for answer in answers:
        boxes = [parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in ("42", answer)]
        (grade,) = released.grade([GradeRequest(f"<answer> {answer} </answer>", "42")])
        assert grade.correct is verify(*boxes, timeout_seconds=None), answer


def test_repetition(golden):
    cases = golden("repetition")["cases"]
    assert {case["out"] for case in cases} == {0, -1}
    for case in cases:
        penalty = NgramPenalty(ngram=10, limit=case["limit"], value=-1.0)
        assert repetition_penalty(case["text"], penalty) == case["out"], case["text"][:80]
