from ampo_core.testing import run_steps
from ampo_registry.testing import check_schedule

from ampo_my_schedule import MySchedule


def test_it_keeps_the_contract_of_a_schedule() -> None:
    check_schedule(MySchedule())


def test_it_halves() -> None:
    assert [MySchedule(start=8.0, half_life=2.0).value(step, 9, {}) for step in (1, 3, 5)] == [8.0, 4.0, 2.0]


def test_it_weighs_a_term_of_a_run() -> None:
    losses: set[float] = set()
    for start in (1.0, 0.5):
        weight = {"type": "my_schedule", "start": start}
        config = {"guidance": {"trigger": "always"}, "objective": {"off_policy": {"weight": weight}}}
        done = run_steps(config, steps=1, plugins=[MySchedule])
        losses.add(done.metrics[0]["policy/loss"])
    assert len(losses) == 2
