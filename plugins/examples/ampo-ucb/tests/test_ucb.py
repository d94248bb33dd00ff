from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from ampo_registry import Grade, Outcome, Question, Selection, SelectionRequest
from ampo_registry.testing import (
    check_selector,
    example_guidance,
    example_outcomes,
    example_question,
    example_request,
    example_step,
)
from ampo_ucb import Bandit, Ucb

TEACHERS = [example_guidance(name) for name in ("vague", "clear", "wordy")]
QUESTIONS = [example_question(number) for number in range(12)]


def test_ucb_keeps_the_contract_of_a_selector() -> None:
    check_selector(Ucb())
    check_selector(Ucb(exploration=0.0))


def asked(question: Question, k: int = 1) -> SelectionRequest:
    return example_request(TEACHERS, k, question=question)


def seen(question: Question, right: int, selections: Sequence[Selection] = (), status: str = "ok") -> Outcome:
    """`question` with so many of four responses right, taught by `selections`."""
    (outcome,) = example_outcomes([asked(question)], [selections])
    grades = tuple(Grade(float(i < right), i < right, True, "ok" if status == "ok" else "timeout") for i in range(4))
    return replace(outcome, grades=grades)


def test_those_never_chosen_come_first_in_the_datasets_order() -> None:
    bandit = Bandit(0.5)
    chosen = bandit.select([asked(question) for question in QUESTIONS[:4]], example_step())
    assert [selection.guidance.teacher for (selection,) in chosen] == ["vague", "clear", "wordy", "vague"]
    assert [selection.score is None for (selection,) in chosen] == [True, True, True, False]
    both = Bandit(0.5).select([asked(QUESTIONS[0], k=2)], example_step())
    assert [selection.guidance.teacher for selection in both[0]] == ["vague", "clear"]


def test_a_choice_is_judged_when_its_question_comes_again() -> None:
    bandit = Bandit(0.5)
    first, second = QUESTIONS[:2]
    ((vague,), (clear,)) = bandit.select([asked(first), asked(second)], example_step())
    bandit.feedback([seen(first, 1, [vague]), seen(second, 0, [clear])])
    assert (bandit.gain("vague"), bandit.gain("clear"), len(bandit.pending)) == (0.0, 0.0, 2)
    bandit.feedback([seen(first, 0, status="timeout"), seen(second, 3)])
    assert (bandit.gain("clear"), bandit.judged) == (0.75, Counter(clear=1))
    bandit.feedback([seen(first, 0)])
    assert (bandit.gain("vague"), bandit.pending) == (-0.25, {})
    bandit.feedback([replace(seen(first, 0, [vague]), trained=False)])
    assert bandit.pending == {}


def test_a_question_that_comes_twice_in_a_step_is_not_judged_by_itself() -> None:
    bandit = Bandit(0.5)
    ((vague,),) = bandit.select([asked(QUESTIONS[0])], example_step())
    bandit.feedback([seen(QUESTIONS[0], 0, [vague]), seen(QUESTIONS[0], 4, [vague])])
    assert not bandit.judged


def test_it_comes_to_prefer_the_teacher_that_helps() -> None:
    bandit, luck, picked = Bandit(0.5), Random(0), list[str]()
    helps = {"vague": 0.1, "clear": 0.9, "wordy": 0.3}
    taught: dict[str, str] = {}
    for _ in range(40):
        chosen = bandit.select([asked(question) for question in QUESTIONS], example_step())
        right = [4 * (luck.random() < helps.get(taught.get(question.uid, ""), 0.0)) for question in QUESTIONS]
        bandit.feedback([seen(*found) for found in zip(QUESTIONS, right, chosen, strict=True)])
        taught = {question.uid: one.guidance.teacher for question, (one,) in zip(QUESTIONS, chosen, strict=True)}
        picked += taught.values()
    assert bandit.gain("clear") > max(bandit.gain("vague"), bandit.gain("wordy"))
    late = Counter(picked[len(picked) // 2 :])
    assert late["clear"] > 0.7 * late.total()
