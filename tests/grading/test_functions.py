"""A person's own function, and a pattern that searches for ever, in the real workers."""

from __future__ import annotations

import pytest
from ampo_plugins.rewards import Function, Regex
from ampo_registry import GradeRequest, PluginFunction

from ampo_core.grading.grader import Grader

pytestmark = pytest.mark.process


def test_a_function_costs_itself_alone():
    function = PluginFunction("hostile_functions", "compute_score", "hostile_functions.py")
    spec = Function(function=function, style="verl", timeout_s=0.3, workers=1, max_error_rate=1.0)
    row = {"extra_info": {"index": 3}}
    texts = ("7", "spin", "exit", "memory", "raise", "8")
    lines: list[str] = []
    with Grader(spec, lines.append) as grader:
        found = dict(zip(texts, grader.grade([GradeRequest(text, "7", extra=row) for text in texts]), strict=True))
    assert [found[text].status for text in texts] == ["ok", "timeout", "error", "error", "error", "ok"]
    assert (found["7"].reward, found["7"].correct, found["7"].numbers) == (1.0, True, {"compute_score/split": 3.0})
    assert not found["8"].correct
    assert found["memory"].detail.startswith("MemoryError")
    assert "compute_score of hostile_functions.py raised RuntimeError: it broke at " in found["raise"].detail
    assert "hostile_functions.py:15" in found["raise"].detail
    began = "reward function: a response has no verdict"
    assert [line.partition(", said")[0] for line in lines] == [f"{began} ({found[t].status})" for t in texts[1:5]]
    assert lines[3].endswith(f"said once of its kind: {found['raise'].detail}")


def test_why_a_response_has_no_verdict_is_said_once_of_each_kind():
    function = PluginFunction("hostile_functions", "of_no_number", "hostile_functions.py")
    lines: list[str] = []
    with Grader(Function(function=function, style="verl", workers=1, max_error_rate=1.0), lines.append) as grader:
        grader.grade([GradeRequest(text, "7") for text in ("1.0", "0.5")])
        grader.beside().grade([GradeRequest(text, "7") for text in ("1.0", "2.0", "none")])
    first, second = lines
    assert "of_no_number of hostile_functions.py gave '1.0', expected a finite number" in first
    assert "gave None, which reward.none says is no verdict" in second


def test_a_pattern_that_searches_for_ever_ends_with_the_deadline():
    with Grader(Regex(pattern="(a+)+b|#### (.+)", timeout_s=0.2, workers=1, max_error_rate=1.0)) as grader:
        slow, right = grader.grade([GradeRequest("a" * 40, "7"), GradeRequest("#### 7", "7")])
    assert (slow.status, slow.reward, right.correct) == ("timeout", 0.0, True)
