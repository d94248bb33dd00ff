from ampo_core.testing import run_steps
from ampo_registry.testing import check_teacher_pool, example_group, example_question

from ampo_my_late_teacher_pool import MyLateTeacherPool


def test_it_keeps_the_contract_of_a_teacher_pool() -> None:
    check_teacher_pool(MyLateTeacherPool())


def test_it_is_silent_where_the_student_knows() -> None:
    question = example_question()
    assert MyLateTeacherPool().answers(question, example_group((0.0, 1.0), question=question)) == []


def test_it_is_asked_in_a_run() -> None:
    done = run_steps({"guidance": {"teacher_pool": "my_late_teacher_pool"}}, plugins=[MyLateTeacherPool])
    assert any(line["guidance/replaced"] > 0 for line in done.metrics)
