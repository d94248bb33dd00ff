from ampo_core.testing import run_steps
from ampo_registry import TeacherAnswer
from ampo_registry.testing import check_teacher_pool, example_question

from ampo_my_teacher_pool import MyTeacherPool


def test_it_keeps_the_contract_of_a_teacher_pool() -> None:
    check_teacher_pool(MyTeacherPool())


def test_long_answers_are_left_out_and_the_shortest_comes_first() -> None:
    question = example_question(answers=[TeacherAnswer(text, text) for text in ("a b c d", "a b c", "a")])
    assert [answer.text for answer in MyTeacherPool(words=3).answers(question)] == ["a", "a b c"]


def test_its_answers_reach_a_run() -> None:
    pool = {"type": "my_teacher_pool", "words": 1}
    done = run_steps({"guidance": {"teacher_pool": pool, "trigger": "always"}}, plugins=[MyTeacherPool])
    assert {sample["teacher"] for sample in done.samples} == {None, "terse"}
