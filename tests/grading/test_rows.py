"""What a reward sees of a question: the same from every caller, sent once a question, and a copy of its own."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from ampo_registry import GradeRequest, Message, Question, RunError

from ampo_core.grading.rows import _read, parcels, rows_of, unpacked

EXTRA = {"extra_info": {"numbers": [3, 5]}, "target_lst": [{"content": "secret"}], "target": None}
QUESTIONS = [
    Question(f"q{i}", (Message("user", f"{i}?"),), (1,), "7", "src", {**EXTRA, "index": i, "long": "x" * 10_000})
    for i in range(3)
]


def test_a_request_has_all_of_its_question_but_teacher_answers() -> None:
    request = GradeRequest.of(QUESTIONS[1], "so", "length")
    assert (request.text, request.answer, request.source, request.uid) == ("so", "7", "src", "q1")
    assert (request.messages, request.finish_reason) == ((Message("user", "1?"),), "length")
    assert set(request.extra) == {"extra_info", "index", "long"}
    assert hash(request) == hash(GradeRequest.of(QUESTIONS[1], "so", "length"))


def test_a_row_is_written_once_a_question_and_comes_back_whole() -> None:
    requests = [GradeRequest.of(question, f"{i}") for question in QUESTIONS for i in range(8)]
    rows = rows_of(requests)
    assert len({id(row) for row in rows}) == 3
    with parcels(requests, rows) as sent:
        (file,) = {Path(place[0]) for *_, place in sent if place is not None}
        assert 30_000 < file.stat().st_size < 31_000
        assert [unpacked(parcel) for parcel in sent] == requests
        assert len(pickle.dumps(sent[0])) < 300
    assert not file.exists()
    with parcels(requests, [None] * len(requests)) as plain:
        assert [place for *_, place in plain] == [None] * len(requests)


def test_what_a_reward_does_to_its_row_reaches_no_other_response() -> None:
    requests = [GradeRequest.of(QUESTIONS[0], "a"), GradeRequest.of(QUESTIONS[0], "b")]
    with parcels(requests, rows_of(requests)) as sent:
        first: Any = unpacked(sent[0])
        first.extra["extra_info"]["numbers"].clear()
        assert unpacked(sent[1]).extra["extra_info"] == {"numbers": [3, 5]}


def test_a_worker_reads_a_row_once_for_responses_that_follow_each_other() -> None:
    _read.cache_clear()
    requests = [GradeRequest.of(question, f"{i}") for question in QUESTIONS for i in range(8)]
    with parcels(requests, rows_of(requests)) as sent:
        for parcel in sent:
            unpacked(parcel)
    assert (_read.cache_info().misses, _read.cache_info().hits) == (3, 21)


def test_a_row_that_cannot_travel_names_its_question() -> None:
    question = Question("uid-of-it", (), (1,), "7", "", {"lock": threading.Lock()})
    with pytest.raises(RunError, match="question uid-of-it: its row cannot be sent to a worker process: cannot pickle"):
        rows_of([GradeRequest.of(question, "a")])
