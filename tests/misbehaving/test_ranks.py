"""On two ranks: a plugin that decides otherwise on one of them, and a fault of one rank alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.forge import Forge
from tests.misbehaving.world import FOOTER, HEADER, World

pytestmark = pytest.mark.misbehaving
BY_RANK = '''
class Odd({base}):
    """Odd."""
    type: Literal["odd"] = "odd"

    def build(self, context):
        return Mine(context.rank)


class Mine:
    def __init__(self, rank):
        self.rank = rank

    def {method}:
        {does}
'''
CASES = {
    "selector": (
        (
            "SelectorSpec",
            "select(self, requests, context)",
            "return [[Selection(r.candidates[self.rank])] for r in requests]",
        ),
        "guidance.selector=odd",
        "step 1: guidance.selector: what it selects is not the same on all ranks (0 and 1 differ)",
    ),
    "trigger": (
        ("TriggerSpec", "fires(self, group, context)", "return self.rank == 0"),
        "guidance.trigger=odd",
        "step 1: guidance.trigger: which groups it fires for is not the same on all ranks (0 and 1 differ)",
    ),
    "one-raises": (
        ("TriggerSpec", "fires(self, group, context)", "return [True][self.rank]"),
        "guidance.trigger=odd",
        "trigger odd (Mine.fires, ",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_ranks_that_differ_end_with_the_decision_or_the_plugin(
    world: World, forge: Forge, tmp_path: Path, case: str
) -> None:
    (base, method, does), use, said = CASES[case]
    plugin = tmp_path / "odd.py"
    plugin.write_text(HEADER + BY_RANK.format(base=base, method=method, does=does) + FOOTER)
    options = (f"run.dir={tmp_path}", use, "resources.devices=2", "reward={type: math_verify, workers: 1}")
    ended = forge.run(world.config, *options, "--plugin", plugin, "--debug", timeout=240)
    assert ended.returncode == 1, ended.stderr
    assert said in ended.stderr
    if case == "one-raises":
        assert "ampo-run: the run failed\nrank 1: trigger odd (Mine.fires, " in ended.stderr
        assert "IndexError: list index out of range" in ended.stderr
        assert "return [True][self.rank]" in ended.stderr  # the traceback of that rank, for --debug
