from typing import cast

from ampo_core.testing import run_steps, tiny_world
from ampo_registry import BuildContext, Judge
from ampo_registry.testing import FakeJudge, check_judge

from ampo_my_judge import MyJudge


def test_it_keeps_the_contract_of_a_judge() -> None:
    fake = cast(Judge, FakeJudge())
    check_judge(MyJudge(path="model"), BuildContext(load_frozen=lambda path, dtype: fake))


def test_a_run_is_taught_by_it() -> None:
    judge = {"type": "my_judge", "path": str(tiny_world().model), "heat": 0.5}
    objective = {"advantage": {"type": "distill", "judge": "surer"}}
    done = run_steps({"judges": {"surer": judge}, "objective": objective}, plugins=[MyJudge])
    assert all(line["policy/grad_norm"] > 0 for line in done.metrics)
