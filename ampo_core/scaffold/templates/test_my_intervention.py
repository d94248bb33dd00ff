from ampo_core.testing import run_steps
from ampo_registry.testing import check_intervention

from ampo_my_intervention import MyIntervention


def test_it_keeps_the_contract_of_an_intervention() -> None:
    check_intervention(MyIntervention())


def test_groups_grow_in_a_run() -> None:
    guidance = {"intervention": "my_intervention", "trigger": "always"}
    done = run_steps({"guidance": guidance}, plugins=[MyIntervention])
    assert all(line["my_intervention/answers"] > 0 for line in done.metrics)
