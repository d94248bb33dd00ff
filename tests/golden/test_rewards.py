"""Format, reward, verdict and repetition against the released program."""

import pytest
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import GradeRequest, NgramPenalty

from ampo_core.grading.penalties import repetition_penalty

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


def test_verifiers(golden):
    cases = golden("verifiers")["cases"]
    differing = {}
    for case in cases:
        (grade,) = MathVerify().grade([GradeRequest(case["output"], case["ground_truth"])])
        if grade.correct != case["eval_script"]:
            differing[case["output"], case["ground_truth"]] = grade.correct
    assert len(cases) == 31
    assert differing == DIFFERENT_VERDICTS


def test_repetition(golden):
    cases = golden("repetition")["cases"]
    assert {case["out"] for case in cases} == {0, -1}
    for case in cases:
        penalty = NgramPenalty(ngram=10, limit=case["limit"], value=-1.0)
        assert repetition_penalty(case["text"], penalty) == case["out"], case["text"][:80]
