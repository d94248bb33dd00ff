"""What ended a run of several ranks, from what each of them left."""

from __future__ import annotations

import os
import signal

import pytest
from ampo_registry import ConfigError, RunError

from ampo_core.distributed.outcome import Outcome, announce, leave, outcomes, processes
from ampo_core.distributed.supervise import Unexplained, verdict
from ampo_core.run.interrupt import Interrupted

DONE = Outcome("done", 0)
TERM, KILL, ABORT = -signal.SIGTERM, -signal.SIGKILL, -signal.SIGABRT
NOBODY: frozenset[int] = frozenset()


def error(text: str, time: float, code: int = 1) -> Outcome:
    return Outcome("error", code, text, time)


def test_all_is_well():
    assert verdict({0: DONE, 1: DONE}, {}, NOBODY, False) is None


def test_an_error_of_all_ranks_is_that_of_the_first_without_a_rank():
    said = {0: error("bad row", 2.0, 2), 1: error("bad row", 1.0, 2)}
    found = verdict(said, {0: 2, 1: 2}, NOBODY, False)
    assert isinstance(found, ConfigError)
    assert str(found) == "bad row"


def test_an_error_of_another_rank_names_it_and_the_first_in_time_counts():
    said = {0: error("also this", 2.0), 1: error("no space left", 1.0)}
    found = verdict(said, {0: 1, 1: 1}, NOBODY, False)
    assert type(found) is RunError
    assert str(found) == "rank 1: no space left"
    assert str(verdict({1: said[1]}, {0: TERM, 1: 1}, NOBODY, False)) == "rank 1: no space left"


def test_a_lost_connection_explains_nothing():
    lost = Outcome("lost", 1, "the connection broke", 1.0)
    assert str(verdict({0: lost, 1: error("own", 5.0)}, {0: 1, 1: 1}, NOBODY, False)) == "rank 1: own"
    assert str(verdict({0: lost}, {0: 1, 1: 7}, NOBODY, False)).startswith("rank 1 ended with exit code 7")
    assert str(verdict({0: lost}, {0: 1}, NOBODY, False)) == "the connection broke"


def test_a_killed_rank_goes_before_the_errors_of_those_that_it_left():
    found = verdict({0: error("Connection reset", 1.0)}, {0: 1, 1: KILL}, NOBODY, False)
    assert isinstance(found, Unexplained)
    assert (found.rank, found.exit_code) == (1, 1)
    assert str(found).startswith("rank 1 was ended by SIGKILL (which often means that the machine ran out of memory)")


def test_a_rank_that_was_killed_from_here_or_aborted_is_a_consequence():
    said = {0: error("own", 1.0)}
    assert str(verdict(said, {0: 1, 1: KILL}, frozenset({1}), False)) == "own"
    assert str(verdict(said, {0: 1, 1: ABORT}, NOBODY, False)) == "own"
    assert str(verdict({}, {0: TERM, 1: ABORT}, NOBODY, False)).startswith("rank 1 was ended by SIGABRT")


def test_a_rank_that_left_no_word():
    assert str(verdict({}, {0: TERM, 1: 5}, NOBODY, False)).startswith("rank 1 ended with exit code 5")
    assert str(verdict({0: DONE}, {1: None}, NOBODY, False)).startswith("rank 1 ended without a word")
    assert str(verdict({}, {0: TERM}, NOBODY, False)).startswith("rank 0 was ended by SIGTERM")


def test_an_interruption_says_where_the_checkpoint_is():
    stopped = Outcome("interrupted", 3, "checkpoint x", 1.0)
    found = verdict({0: Outcome("interrupted", 3, "", 0.5), 1: stopped}, {0: 3, 1: 3}, NOBODY, True)
    assert isinstance(found, Interrupted)
    assert (found.exit_code, str(found)) == (3, "checkpoint x")
    assert isinstance(verdict({1: stopped}, {1: 3}, NOBODY, False), Interrupted)  # a rank was signalled by others


@pytest.mark.parametrize("killed", [NOBODY, frozenset({0, 1})])
def test_an_interruption_without_a_checkpoint(killed):
    assert isinstance(verdict({}, {0: KILL if killed else TERM, 1: KILL}, frozenset({0, 1}), True), KeyboardInterrupt)
    assert isinstance(verdict({0: Outcome("interrupted", 3)}, {0: 3, 1: TERM}, killed, True), KeyboardInterrupt)


def test_an_error_while_a_signal_waits_is_an_error():
    assert str(verdict({0: error("own", 1.0), 1: error("own", 2.0)}, {0: 1, 1: 1}, NOBODY, True)) == "own"


def test_an_error_brings_the_traceback_of_its_rank_for_debug():
    said = Outcome("error", 1, "selector x: no", 1.0, trace="Traceback of rank 1")
    found = verdict({0: error("lost", 2.0), 1: said}, {0: 1, 1: 1}, NOBODY, False)
    assert str(found) == "rank 1: selector x: no"
    assert found.__notes__ == ["Traceback of rank 1"]


def test_a_fault_asks_for_a_report():
    found = verdict({0: Outcome("fault", 1, "Traceback\nZeroDivisionError\n", 1.0)}, {0: 1}, NOBODY, False)
    assert str(found).startswith("Traceback\nZeroDivisionError\nthis is a fault of AMPO or of a plugin")


def test_what_ranks_leave_in_their_folder(tmp_path):
    announce(tmp_path, 10, os.getpid())
    leave(tmp_path, 2, error("a", 0.0))
    leave(tmp_path, 10, DONE)
    assert processes(tmp_path) == {10: os.getpid()}
    found = outcomes(tmp_path)
    assert list(found) == [2, 10]
    assert found[2].text == "a"
    assert 0 < found[2].time <= found[10].time
