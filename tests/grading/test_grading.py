"""The grader with real worker processes: deadlines, crashes, counts, start-up and a clean end."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from ampo_plugins.rewards import Countdown, MathVerify, Sum
from ampo_registry import ConfigError, GradeRequest, Message, PluginError, Question, RunError
from hostile_reward import Hostile

from ampo_core.data.report import TruthCheck
from ampo_core.grading import pool
from ampo_core.grading.grader import GradeCounts, Grader
from ampo_core.grading.pool import worker_count

pytestmark = pytest.mark.process

HOSTILE_MATHS = {
    "tower": r"10^{10^{10}}",
    "factorial": r"(10^9)!",
    "binomial": r"\binom{10^9}{5\cdot 10^8}",
    "braces": "{" * 20_000 + "1" + "}" * 20_000,
    "roots": r"\sqrt{" * 3_000 + "1" + "}" * 3_000,
    "megabyte": "1+" * 500_000 + "1",
}


def yes_no(*texts):
    return [GradeRequest(text, "yes") for text in texts]


def children():
    """Worker processes: children of the fork server, which itself lives as long as Python."""
    servers = [child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]
    return [worker for server in servers for worker in server.children()]


@pytest.fixture(scope="module")
def misgraded():
    words = ("two", "bare", "int", "bool", "status", "list", "exit", "interrupt")
    with Grader(Hostile(workers=1, max_error_rate=1.0)) as made:
        return dict(zip(words, made.grade(yes_no(*words)), strict=True))


@pytest.fixture
def grader():
    with Grader(Hostile(timeout_s=0.3, workers=2, max_error_rate=1.0)) as made:
        yield made


def test_grades_come_in_order(grader):
    texts = ["yes" if i % 3 == 0 else f"no {i}" for i in range(100)]
    grades = grader.grade(yes_no(*texts))
    assert [grade.correct for grade in grades] == [i % 3 == 0 for i in range(100)]
    assert grader.grade([]) == []


def where(grade):
    """The words that a failure of the reward begins with: its name, its method, the line of its own file."""
    found = re.match(r"reward hostile \(Hostile\.grade, \S+hostile_reward\.py:\d+\): ", grade.detail)
    assert found, grade.detail
    return found[0]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("two", "gave list [Grade(.*; expected a list of one Grade for one request"),
        ("bare", "gave Grade .*; expected a list of one Grade for one request"),
        ("int", "gave 1; expected True or False as correct"),
        ("bool", "gave True; expected a finite number as reward"),
        ("status", r"gave tuple \('fine', ''\); expected ok, timeout, error and a text"),
        ("list", r"gave list \[\]; expected a mapping of names to numbers"),
        ("exit", "SystemExit: 0"),
        ("interrupt", "KeyboardInterrupt"),
    ],
)
def test_what_a_reward_returns_is_checked_before_it_is_used(misgraded, word, said):
    grade = misgraded[word]
    assert (grade.status, grade.reward, grade.correct) == ("error", 0.0, False)
    assert re.search(said.replace("[Grade(", r"\[Grade\("), grade.detail.removeprefix(where(grade)))


def test_one_bad_response_costs_only_itself(grader):
    bad = ["spin", "die", "raise", "base", "memory", "nan", "none"]
    grades = grader.grade(yes_no(*(text for word in bad for text in ("yes", word, f"no {word}"))))
    assert [grade.correct for grade in grades] == [True, False, False] * len(bad)
    assert all(grade.status == "ok" for i, grade in enumerate(grades) if i % 3 != 1)
    found = dict(zip(bad, (grade for i, grade in enumerate(grades) if i % 3 == 1), strict=True))
    assert {word: grade.status for word, grade in found.items()} == {
        word: "timeout" if word == "spin" else "error" for word in bad
    }
    assert found["spin"].detail == "no verdict within 0.3 s of CPU time"
    assert found["die"].detail == "the worker died (exit code 7)"
    assert found["raise"].detail == f"{where(found['raise'])}ValueError: no idea"
    assert found["base"].detail == f"{where(found['base'])}BadBase: not even an Exception"
    assert found["memory"].detail == "MemoryError: more than the 4 GiB that a verdict may take"
    assert found["nan"].detail == f"{where(found['nan'])}gave nan; expected a finite number as reward"
    assert found["none"].detail == f"{where(found['none'])}gave None; expected a Grade"
    assert grader.take_counts() == GradeCounts(graded=21, timeouts=1, errors=6)
    assert grader.take_counts() == GradeCounts()


def test_a_response_without_verdict_earns_what_a_wrong_one_earns(grader):
    plain, tagged = grader.grade(yes_no("raise", "<answer>raise</answer>"))
    assert (plain.reward, plain.formatted) == (0.0, False)
    assert (tagged.reward, tagged.formatted, tagged.status) == (pytest.approx(0.1), True, "error")


def test_equal_requests_are_graded_once(grader):
    first = grader.grade(yes_no("pid", "pid"))
    assert first[0] == first[1]
    assert grader.grade(yes_no("pid")) == first[:1]
    other = GradeRequest("pid", "another truth")
    assert grader.grade([other])[0].reward > 0
    assert grader.take_counts().graded == 4


def test_a_reward_reads_the_row_and_a_restarted_worker_reads_it_again():
    questions = [Question(f"q{i}", (), (1,), "die", "", {"points": i, "target": [{"content": "no"}]}) for i in range(3)]
    with Grader(Hostile(workers=1, max_error_rate=1.0)) as grader:
        texts = ("row", "die", "<answer>row</answer>", "row")
        grades = grader.grade([GradeRequest.of(question, text) for question in questions for text in texts])
    assert [(grade.reward, grade.status) for grade in grades] == [
        found for i in range(3) for found in ((i, "ok"), (0.0, "error"), (i, "ok"), (i, "ok"))
    ]


def test_a_verdict_is_known_again_only_where_all_that_it_may_depend_on_is_the_same(grader):
    question = Question("q", (Message("user", "?"),), (1,), "yes", "", {"points": 1})
    others = [
        Question("q", (Message("user", "?"),), (1,), "yes", "", {"points": 2}),
        Question("q", (Message("user", "!"),), (1,), "yes", "", {"points": 1}),
        Question("r", (Message("user", "?"),), (1,), "yes", "", {"points": 1}),
    ]
    asked = []
    run = grader._pool.run
    grader._pool.run = lambda task, arguments, tries: asked.append(len(arguments)) or run(task, arguments, tries)
    found = grader.grade([GradeRequest.of(one, "row", end) for one in [question] * 2 for end in ("stop", "length")])
    assert [(grade.reward, grade.correct) for grade in found] == [(1.0, True), (1.0, False)] * 2
    assert [grade.reward for grade in grader.grade([GradeRequest.of(one, "row") for one in others])] == [2.0, 1.0, 1.0]
    grader.grade([GradeRequest.of(one, "row") for one in (question, *others)])
    assert asked == [2, 3, 0]


def test_numbers_of_a_reward_are_checked_in_the_worker(grader):
    good, core, bare, infinite, text = grader.grade(
        [
            GradeRequest("number", numbers)
            for numbers in ('{"mine/a": 1}', '{"reward/a": 1}', '{"a": 1}', '{"mine/a": Infinity}', '{"mine/a": "1"}')
        ]
    )
    assert good.numbers == {"mine/a": 1}
    assert hash(good) == hash(replace(good, numbers={}))
    assert re.search(
        r"\(Hostile.grade, .*hostile_reward.py:\d+\): gave .*the metric 'reward/a' needs a name of its own", core.detail
    )
    assert "'a' needs a name of its own, such as mine/a" in bare.detail
    assert infinite.detail.endswith("the metric 'mine/a' is inf, expected a finite number")
    assert text.detail.endswith("gave dict {'mine/a': '1'}; expected names and numbers in numbers")
    assert [grade.status for grade in (core, bare, infinite, text)] == ["error"] * 4


def test_the_built_in_sum_grades_its_parts_in_a_worker():
    spec = Sum(
        workers=1, parts=[{"reward": "countdown", "weight": 0.75}, {"reward": Countdown(use="some"), "name": "some"}]
    )
    question = Question("q", (), (1,), '{"target": 24, "numbers": [3, 8, 5]}', "")
    with Grader(spec) as made:
        texts = [f"<answer> {said} </answer>" for said in ("3 * 8", "3 * (5 + 8) - 15", "3 + 8 + 5")]
        grades = made.grade([GradeRequest.of(question, text) for text in texts])
        assert made.check_truths([question.answer, "24"])[1].refused.startswith("countdown: it must be a JSON object")
    assert [grade.correct for grade in grades] == [False, False, False]
    assert [grade.numbers for grade in grades] == [
        {"sum/countdown": pytest.approx(one), "sum/some": pytest.approx(two)}
        for one, two in ((0.1, 1.0), (0.1, 0.1), (0.1, 0.1))
    ]
    assert grades[0].reward == pytest.approx(0.75 * 0.1 + 1.0)


def test_failures_are_tried_again_not_remembered(grader):
    grader.grade(yes_no("raise", "raise"))
    grader.grade(yes_no("raise"))
    assert grader.take_counts() == GradeCounts(graded=3, errors=3)


def test_truths_are_checked_in_the_workers(grader):
    assert grader.check_truths(["5", "", "odd"]) == [
        TruthCheck(),
        TruthCheck(refused="empty"),
        TruthCheck(listed="it is odd"),
    ]
    assert grader.check_truths([]) == []


@pytest.mark.parametrize(("truth", "verdict"), [("second 5", TruthCheck()), ("second ", TruthCheck(refused="empty"))])
def test_a_truth_that_is_too_slow_once_is_asked_again(tmp_path, truth, verdict):
    with Grader(Hostile(timeout_s=0.3, workers=1, tries=str(tmp_path / "tries"))) as grader:
        assert grader.check_truths([truth, "5"]) == [verdict, TruthCheck()]


def test_truths_without_a_verdict_are_kept_and_listed_side_by_side():
    with Grader(Hostile(timeout_s=0.05, workers=2)) as grader:
        hanging, fine, raising, _ = grader.check_truths(["spin", "5", "raise", "spin"])
    assert (hanging.refused, fine, raising.refused) == (None, TruthCheck(), None)
    assert hanging.listed == "it could not be checked in 3 tries: no verdict within 0.8 s of CPU time"
    assert raising.listed.startswith("it could not be checked in 3 tries: reward hostile (Hostile.check_truth, /")
    assert raising.listed.endswith("): ValueError: bad truth")


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ("false", r"Hostile\.check_truth, .*gave False; expected a reason or None"),
        ("blank", r"Hostile\.note_truth, .*''"),
    ],
)
def test_a_reward_that_says_nothing_of_a_truth_is_refused(grader, truth, said):
    with pytest.raises(PluginError, match=said):
        grader.check_truths(["5", truth])


def test_what_a_reward_fails_to_earn_counts_nothing(grader):
    (grade,) = grader.grade(yes_no("raise unformatted"))
    assert (grade.reward, grade.formatted, grade.status) == (0.0, False, "error")
    assert "ValueError: no idea; reward hostile (Hostile.formatted, " in grade.detail
    (wrong,) = grader.grade(yes_no("raise formatting"))
    assert wrong.detail.endswith("gave 'yes'; expected True or False")


@pytest.mark.parametrize("word", ["second", "second killed", "second memory"])
def test_what_the_machine_may_be_to_blame_for_runs_again_alone(tmp_path, word):
    with Grader(Hostile(timeout_s=0.3, workers=2, tries=str(tmp_path / "tries"))) as grader:
        grades = grader.grade([GradeRequest(word, word), *yes_no("yes", "no")])
        assert [(grade.correct, grade.status) for grade in grades] == [(True, "ok"), (True, "ok"), (False, "ok")]
        assert (tmp_path / "tries").read_bytes() == b".."
        assert grader.take_counts() == GradeCounts(graded=3)


def test_it_runs_again_when_nothing_else_does(tmp_path):
    spec = Hostile(timeout_s=0.2, workers=2, tries=str(tmp_path / "tries"))
    with Grader(spec) as grader:
        # a nap that ends later than the first try has failed makes the second one look like a first
        grades = grader.grade([GradeRequest("second", "second"), GradeRequest("nap", "nap")])
    assert [grade.status for grade in grades] == ["ok", "ok"]
    assert (tmp_path / "tries").read_bytes() == b".."


def test_a_second_try_decides_so_the_first_is_short_and_few_run_at_once(monkeypatch):
    calls, survive = [], pool.GradingPool._survive

    def watched(self, task, arguments, seconds, share=1.0):
        calls.append((len(arguments), seconds * share))
        return survive(self, task, arguments, seconds, share)

    with Grader(Hostile(timeout_s=0.5, workers=4, max_error_rate=1.0)) as grader:
        monkeypatch.setattr(pool.GradingPool, "_survive", watched)
        grades = grader.grade([*yes_no("yes", "spin", "memory", "raise"), *(GradeRequest("work", t) for t in "ab")])
    assert [grade.status for grade in grades] == ["ok", "timeout", "error", "error", "ok", "ok"]
    assert calls == [(6, 0.1), (2, 0.5), (1, 0.5), (1, 0.5), (3, 0.1)]


def test_sleeping_costs_no_cpu_time_and_ends_at_the_wall_limit(tmp_path, monkeypatch):
    with Grader(Hostile(timeout_s=0.2, workers=1, tries=str(tmp_path / "tries"))) as grader:
        assert grader.grade([GradeRequest("nap", "nap")])[0].correct
        monkeypatch.setattr(pool, "WALL", 2)
        assert grader.grade(yes_no("sleep"))[0].detail == "no verdict within 0.4 s"


def test_a_worker_that_ran_out_of_memory_grades_nothing_more():
    with Grader(Hostile(workers=1, max_error_rate=1.0)) as grader:
        before, memory = grader.grade(yes_no("pid", "memory"))
        after = grader.grade([GradeRequest("pid", "again")])[0]
    assert (memory.status, before.status, after.status) == ("error", "ok", "ok")
    assert before.reward != after.reward


def test_no_honest_verdict_is_lost_on_a_busy_machine(request, monkeypatch):
    monkeypatch.setattr(pool, "WALL", 100)  # how busy else the machine is that runs the tests is not known
    requests = [GradeRequest("work", f"{i}") for i in range(3)] + yes_no(*["yes", "no"] * 50)
    with Grader(Hostile(timeout_s=0.8, workers=2, max_error_rate=0.0)) as grader:
        request.getfixturevalue("busy")  # only now, for workers take long to start beside it
        started = time.monotonic()
        grades = grader.grade(requests)
        assert grader.take_counts() == GradeCounts(graded=len(requests))
    assert [grade.correct for grade in grades[3:]] == [True, False] * 50
    assert time.monotonic() - started > 0.8 or len(os.sched_getaffinity(0)) > 2  # a deadline by the clock would bind


def test_killed_idle_workers_are_replaced(grader):
    killed = children()
    for worker in killed:
        worker.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(killed, timeout=60)[1] == []
    assert [grade.correct for grade in grader.grade(yes_no("yes", "no"))] == [True, False]


@pytest.mark.parametrize(("rate", "allowed"), [(0.0, 0), (0.003, 3)])
def test_too_many_failures_stop_the_run(rate, allowed):
    with Grader(Hostile(workers=1, max_error_rate=rate)) as grader:
        for _ in range(allowed):
            grader.grade(yes_no("yes", "raise"))
        with pytest.raises(RunError, match=r"hostile: .* had no verdict.*max_error_rate.*ValueError: no idea"):
            grader.grade(yes_no("yes", "raise"))


def test_failures_of_long_ago_are_forgotten():
    with Grader(Hostile(workers=1, max_error_rate=0.001)) as grader:
        for _ in range(3):
            grader.grade(yes_no("raise", *["yes"] * 1_000))


def test_reward_that_cannot_start_is_a_config_error():
    with pytest.raises(
        ConfigError,
        match=r"cannot be started: reward hostile \(Hostile\.build, .*\.py:\d+\): OSError: no such verifier",
    ):
        Grader(Hostile(workers=1, start="no such verifier"))
    assert children() == []


def test_reward_that_cannot_travel_is_a_config_error():
    class Local(Hostile):
        pass

    with pytest.raises(ConfigError, match="Local cannot be sent to a worker process: Can't pickle local object"):
        Grader(Local())


def test_reward_whose_module_the_worker_lacks_is_a_config_error(tmp_path, monkeypatch):
    (tmp_path / "vanishing_reward.py").write_text("from hostile_reward import Hostile\nclass Gone(Hostile): pass\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        spec = importlib.import_module("vanishing_reward").Gone(workers=1)
    with pytest.raises(ConfigError, match="cannot be started: ModuleNotFoundError: No module named 'vanishing_reward'"):
        Grader(spec)
    assert children() == []


def test_broken_verifier_is_found_before_the_run():
    with pytest.raises(ConfigError, match=r"the verifier is broken here\. 'yes' .* must be wrong; found: correct"):
        Grader(Hostile(workers=1, broken_canary=True))
    assert children() == []


def test_close_leaves_no_worker_even_a_busy_one():
    grader = Grader(Hostile(timeout_s=60.0, workers=2))
    assert len(children()) == 2
    grader._pool._pool.schedule(time.sleep, args=(60,))
    started = time.monotonic()
    grader.close()
    grader.close()
    assert children() == []
    assert time.monotonic() - started < 20


def test_worker_count():
    assert worker_count(Hostile(workers=3)) == 3
    assert worker_count(Hostile()) == min(len(os.sched_getaffinity(0)), 16)


def test_hostile_mathematics_is_stopped_and_the_rest_graded():
    good = [GradeRequest(f"so <answer> {i} </answer>", str(i + i % 2)) for i in range(50)]
    bad = [GradeRequest(f"so <answer>{answer}</answer>", "42") for answer in HOSTILE_MATHS.values()]
    with Grader(MathVerify(timeout_s=0.5, workers=2, max_error_rate=1.0)) as grader:
        grades = grader.grade([*good[:25], *bad, *good[25:]])
    verdicts = grades[:25] + grades[25 + len(bad) :]
    assert [grade.correct for grade in verdicts] == [i % 2 == 0 for i in range(50)]
    assert all(grade.status == "ok" for grade in verdicts)
    found = grades[25 : 25 + len(bad)]
    assert not any(grade.correct for grade in found)
    assert found[0].status == found[1].status == found[2].status == "timeout"


def test_workers_stay_light_while_torch_is_loaded_and_die_with_the_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    *modules, pid = done.stdout.split()
    assert modules == ["libtorch=False"]
    deadline = time.monotonic() + 20
    while psutil.pid_exists(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(int(pid))


PARENT = """
import os, signal
import psutil
from ampo_core.grading import pool
from ampo_core.grading.grader import Grader
from ampo_plugins.rewards.math_verify import MathVerify

if __name__ == "__main__":
    import torch

    grader = Grader(MathVerify(workers=1))
    workers = [p for p in psutil.Process().children(recursive=True) if p.memory_info().rss > 50e6]
    maps = [m.path for m in workers[0].memory_maps()]
    print(f"libtorch={any('libtorch' in path for path in maps)}", workers[0].pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
