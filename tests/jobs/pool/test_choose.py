"""Which answers and questions stay, and that every answer has one fate."""

from __future__ import annotations

from collections import Counter

import pytest
from ampo_registry import TeacherAnswer

from ampo_core.jobs.pool.choose import FATES, Judged, Tally, choose, composed, judge, quality, united
from ampo_core.jobs.pool.shards import Answer, Verdict


def answer(sample: int, text: str, finish: str = "stop") -> Answer:
    return Answer("q", sample, text, finish, tokens=2 * len(text), prompt_tokens=3)


def verdict(sample: int, correct: bool, status: str = "ok") -> Verdict:
    return Verdict("q", sample, correct, status)


ANSWERS = [
    Judged(answer(0, "seven!!"), verdict(0, True)),
    Judged(answer(1, "seven"), verdict(1, True)),
    Judged(answer(2, "7even"), verdict(2, True)),
    Judged(answer(3, "8"), verdict(3, False)),
    Judged(answer(4, "seven and on", "length"), None),
    Judged(answer(5, "", "content_filter"), None),
    Judged(answer(6, "7"), verdict(6, False, "timeout")),
    Judged(answer(7, "seven after a very long time"), verdict(7, True)),
    Judged(answer(8, "seven"), verdict(8, True)),
]


@pytest.mark.parametrize(
    ("rule", "kept"),
    [("shortest", ["seven"]), ("longest", ["seven!!"]), ("first", ["seven!!"]), ("all", ["seven!!", "seven", "7even"])],
)
def test_the_rule_chooses_among_the_correct_ones_that_fit(rule, kept):
    tally = Tally()
    chosen = choose(ANSWERS, rule, len, 10, tally)
    assert [item.answer.text for item in chosen] == kept
    assert tally.fates == Counter(
        kept=len(kept),
        not_chosen=4 - len(kept),
        too_long=1,
        incorrect=1,
        not_graded=1,
        cut_off=1,
        ended_otherwise=1,
    )
    assert sum(tally.fates[fate] for fate in FATES) == len(ANSWERS)
    assert tally.kept_tokens == sum(map(len, kept))
    assert (tally.questions, tally.solved, tally.answered) == (1, 1, 1)
    assert tally.tokens == 2 * sum(len(judged.answer.text) for judged in ANSWERS)
    assert tally.prompt_tokens == 3 * len(ANSWERS)


def test_of_equally_long_answers_the_first_is_kept():
    (kept,) = choose(ANSWERS, "shortest", len, None, Tally())
    assert kept.answer.sample == 1
    (kept,) = choose(ANSWERS, "longest", lambda text: 1, None, Tally())
    assert kept.answer.sample == 0


def test_without_a_limit_nothing_is_too_long():
    tally = Tally()
    (kept,) = choose(ANSWERS, "longest", len, None, tally)
    assert kept.answer.sample == 7
    assert tally.fates["too_long"] == 0


def test_a_question_that_nothing_solves_is_counted():
    tally = Tally()
    assert choose(ANSWERS[3:7], "shortest", len, 10, tally) == []
    assert choose([], "shortest", len, 10, tally) == []
    assert (tally.questions, tally.solved, tally.answered) == (2, 0, 0)
    assert choose(ANSWERS[7:8], "shortest", len, 10, tally) == []
    assert (tally.questions, tally.solved, tally.answered) == (3, 1, 0)


def test_quality_is_the_share_of_correct_answers_where_the_verifier_has_not_failed():
    assert quality(ANSWERS) == pytest.approx(5 / 8)


def test_answers_and_verdicts_must_fit():
    ended, cut = answer(0, "a"), answer(1, "b", "length")
    assert judge([ended, cut], [verdict(0, True)]) == {"q": [Judged(ended, verdict(0, True)), Judged(cut, None)]}
    with pytest.raises(ValueError, match="answer 0"):
        judge([ended], [])
    with pytest.raises(ValueError, match="answer 1"):
        judge([cut], [verdict(1, True)])
    with pytest.raises(ValueError, match="belong to no answer"):
        judge([ended], [verdict(0, True), verdict(4, True)])


KEPT = {
    "a": {"1": [TeacherAnswer("a", "a1")], "2": [TeacherAnswer("a", "a2")]},
    "b": {"1": [TeacherAnswer("b", "b1")], "3": [TeacherAnswer("b", "b3")]},
    "c": {"2": [TeacherAnswer("c", "c2")], "3": [TeacherAnswer("c", "c3"), TeacherAnswer("c", "c3'")]},
}
UIDS = ["3", "1", "2", "4"]


def test_a_composition_has_its_teachers_answers_in_its_order():
    found = composed(KEPT, UIDS, ["c", "a"])
    assert [[item.text for item in answers] for answers in found] == [["c3", "c3'"], ["a1"], ["c2", "a2"], []]


@pytest.mark.parametrize(
    ("unify", "compositions", "left"),
    [
        (None, {"all": ["a", "b", "c"]}, ["3", "1", "2", "4"]),
        ("intersection", {"all": ["a", "b", "c"]}, ["3", "1", "2"]),
        ("intersection", {"a": ["a"], "bc": ["b", "c"]}, ["1", "2"]),
        ("intersection", {"a": ["a"], "b": ["b"]}, ["1"]),
        ("every_teacher", {"ab": ["a", "b"]}, ["1"]),
        ("every_teacher", {"a": ["a"], "bc": ["b", "c"]}, []),
    ],
)
def test_unify(unify, compositions, left):
    assert united(unify, KEPT, UIDS, compositions) == left
