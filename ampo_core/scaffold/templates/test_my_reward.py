from ampo_core.testing import run_steps
from ampo_registry.testing import check_reward

from ampo_my_reward import MyReward


def test_it_keeps_the_contract_of_a_reward() -> None:
    check_reward(MyReward())
    check_reward(MyReward(tolerance=0.5), "3", "3.75")


def test_it_grades_a_run() -> None:
    done = run_steps({"reward": "my_reward"}, plugins=[MyReward])
    assert any(line["reward/accuracy"] > 0 for line in done.metrics)
