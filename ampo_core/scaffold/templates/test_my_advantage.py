from ampo_core.testing import run_steps
from ampo_registry.testing import check_advantage

from ampo_my_advantage import MyAdvantage


def test_it_keeps_the_contract_of_an_advantage() -> None:
    check_advantage(MyAdvantage())


def test_it_trains() -> None:
    done = run_steps({"objective": {"advantage": "my_advantage"}}, plugins=[MyAdvantage])
    assert all(line["policy/grad_norm"] > 0 for line in done.metrics)
