"""Every kind of component × what it may do wrong: the run ends with an error that names it and what was wrong."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.misbehaving.table import CASES, KINDS, Case
from tests.misbehaving.world import World

pytestmark = pytest.mark.process


def plugin(case: Case) -> str:
    """The class `Odd` of the case's kind, whose method does what the case says."""
    kind = KINDS[case.kind]
    methods = {name: body for name, body in kind.methods.items() if name.partition("(")[0] != "rank_key"}
    replaced = [name for name in kind.methods if name.partition("(")[0] == case.method.partition("(")[0]]
    methods[replaced[0] if replaced else case.method] = case.does
    lines = "\n".join(f"    def {name}:\n        {body}\n" for name, body in methods.items())
    return f'class Odd({kind.base}):\n    """Odd."""\n    type: Literal["odd"] = "odd"\n\n{lines}'


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=() if case.quick else pytest.mark.misbehaving) for case in CASES],
)
def test_a_component_that_misbehaves_is_named(world: World, case: Case) -> None:
    ended = world(plugin(case), *KINDS[case.kind].use, *case.asks)
    assert ended.code == case.code, ended.said
    assert "Traceback" not in ended.said
    kind = {"scoring": "selector", "credit": "advantage"}.get(case.kind, case.kind)
    method = case.within or case.method.partition("(")[0]
    owner = "Mine" if kind == "rollout" and case.within else "Odd"
    where = re.escape(f"{owner}.{method}") if kind != "shaping" or not case.within else ""
    if where:
        assert re.search(rf"{kind} odd[^\n]*\({where}, [^\n]*odd\.py:\d+\): ", ended.said), ended.said
    for part in case.said:
        assert part in ended.said, ended.said


def test_the_table_is_large_and_its_cases_differ() -> None:
    assert len(CASES) >= 150
    assert {case.kind for case in CASES} == set(KINDS)
    assert max(Counter(case.name for case in CASES).values()) == 1
