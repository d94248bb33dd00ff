from ampo_core.testing import run_steps
from ampo_registry.testing import check_task

from ampo_my_task import MyTask


def test_it_keeps_the_contract_of_a_task() -> None:
    check_task(MyTask())


def test_its_questions_are_trained_on() -> None:
    task = {"type": "my_task", "questions": 16}
    done = run_steps({"guidance": {"trigger": "always"}}, plugins=[MyTask], task=task)
    assert {sample["teacher"] for sample in done.samples} <= {None, "short", "spelling"}
    assert all(line["guidance/replaced"] > 0 for line in done.metrics)
