from ampo_core.testing import run_steps
from ampo_registry.testing import check_trigger, example_group, example_step

from ampo_my_trigger import MyTrigger


def test_it_keeps_the_contract_of_a_trigger() -> None:
    check_trigger(MyTrigger())


def test_it_fires_where_enough_is_wrong() -> None:
    most, half = example_group((0.0, 0.1, 0.0, 1.0)), example_group((0.0, 0.1, 1.0, 1.0))
    assert [MyTrigger(share=0.75).fires(group, example_step()) for group in (most, half)] == [True, False]


def test_it_fires_in_a_run() -> None:
    done = run_steps({"guidance": {"trigger": "my_trigger"}}, plugins=[MyTrigger])
    assert any(line["guidance/triggered"] > 0 for line in done.metrics)
