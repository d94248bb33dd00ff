from ampo_core.testing import run_steps
from ampo_registry.testing import check_credit, example_credit_groups, example_step

from ampo_my_credit import MyCredit


def test_it_keeps_the_contract_of_a_credit() -> None:
    check_credit(MyCredit())


def test_the_last_token_gets_it_all() -> None:
    group = example_credit_groups()[0]
    (first, *_), *_ = MyCredit(discount=0.5).credit([group], example_step())
    assert first[-2] == 0.5 * first[-1] > 0


def test_it_trains() -> None:
    done = run_steps({"objective": {"advantage": "my_credit"}}, plugins=[MyCredit])
    assert all(line["policy/grad_norm"] > 0 for line in done.metrics)
