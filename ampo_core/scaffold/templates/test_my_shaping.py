from ampo_core.testing import run_steps
from ampo_registry.testing import check_shaping

from ampo_my_shaping import MyShaping


def test_it_keeps_the_contract_of_a_shaping() -> None:
    check_shaping(MyShaping())


def test_it_shapes_in_a_run() -> None:
    objective = {"off_policy": {"loss": {"type": "shaped", "shaping": "my_shaping"}}}
    done = run_steps({"guidance": {"trigger": "always"}, "objective": objective}, plugins=[MyShaping])
    assert all(line["policy/loss_off"] != 0 for line in done.metrics)
