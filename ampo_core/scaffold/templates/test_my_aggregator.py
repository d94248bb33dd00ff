from ampo_core.testing import run_steps
from ampo_registry.testing import check_aggregator

from ampo_my_aggregator import MyAggregator


def test_it_keeps_the_contract_of_an_aggregator() -> None:
    check_aggregator(MyAggregator())


def test_it_trains() -> None:
    objective = {"on_policy": {"aggregator": "my_aggregator"}}
    done = run_steps({"objective": objective}, plugins=[MyAggregator])
    assert all(line["policy/grad_norm"] > 0 for line in done.metrics)
