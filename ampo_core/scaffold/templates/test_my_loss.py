from ampo_core.testing import run_steps
from ampo_registry.testing import check_loss

from ampo_my_loss import MyLoss


def test_it_keeps_the_contract_of_a_loss() -> None:
    check_loss(MyLoss())


def test_it_trains() -> None:
    objective = {"on_policy": {"loss": "my_loss"}}
    done = run_steps({"objective": objective}, plugins=[MyLoss])
    assert "my_loss_gate" in {name.rpartition("/")[2] for name in done.metrics[0]}
    assert all(line["policy/grad_norm"] > 0 for line in done.metrics)
