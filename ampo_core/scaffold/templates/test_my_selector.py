from ampo_core.testing import run_steps
from ampo_registry.testing import check_selector

from ampo_my_selector import MySelector


def test_it_keeps_the_contract_of_a_selector() -> None:
    check_selector(MySelector())


def test_it_chooses_in_a_run() -> None:
    guidance = {"selector": "my_selector", "trigger": "always"}
    done = run_steps({"guidance": guidance}, plugins=[MySelector])
    assert all(0.0 < line["guidance/score_mean"] <= 1.0 for line in done.metrics)
