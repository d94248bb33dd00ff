"""Progress on a terminal (bars) and elsewhere (plain lines)."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from ampo_core.run.progress import Progress, Reading, format_seconds

METRICS = {
    "reward/mean": 0.5,
    "reward/accuracy": 0.25,
    "guidance/triggered": 0.75,
    "policy/entropy": 1.25,
    "tokens/generated": 5000.0,
    "time/step_s": 2.0,
}


class Clock:
    now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("ampo_core.run.progress.monotonic", lambda: found.now)
    return found


@pytest.fixture
def run(clock: Clock) -> Callable[..., str]:
    def run(*, terminal: bool, total: int = 25, seconds: float = 1.0, metrics: dict[str, float] = METRICS) -> str:
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=60 if not terminal else 160)
        with Progress(console, "train", total, line_every=10, line_seconds=100.0) as progress:
            for step in range(1, total + 1):
                clock.now += seconds
                progress.step(step, metrics)
        return out.getvalue()

    return run


def test_plain_lines_come_every_ten_steps_and_last(run):
    lines = run(terminal=False).splitlines()
    assert [line.split()[1] for line in lines] == ["1/25", "11/25", "21/25", "25/25"]
    assert lines[1] == (
        "train 11/25 reward 0.500 · accuracy 25.0% · triggered 75% · entropy 1.250 · 2,500 tokens/s (14s left)"
    )
    assert "left" not in lines[0] + lines[-1]


def test_plain_lines_come_at_least_every_so_many_seconds(run):
    lines = run(terminal=False, total=8, seconds=60.0).splitlines()
    assert [line.split()[1] for line in lines] == ["1/8", "3/8", "5/8", "7/8", "8/8"]


def test_plain_lines_hold_no_control_codes(run):
    assert "\x1b" not in run(terminal=False)


def test_terminal_shows_bar_numbers_and_time_left(run):
    shown = run(terminal=True)
    assert "\x1b" in shown
    assert "25/25" in shown
    for part in ("reward 0.500", "accuracy 25.0%", "triggered 75%", "entropy 1.250", "2,500 tokens/s"):
        assert part in shown


def test_unknown_and_non_finite_metrics_are_not_shown(run):
    line = run(terminal=False, total=1, metrics={"policy/loss": float("nan"), "other": 1.0})
    assert line == "train 1/1\n"


def test_speed_falls_back_on_the_clock(run):
    assert "250 tokens/s" in run(terminal=False, total=1, seconds=2.0, metrics={"tokens/trained": 500.0})


@pytest.mark.parametrize("terminal", [True, False])
def test_notes_are_printed_as_they_are(terminal):
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=terminal, width=200), "train", 3) as progress:
        progress.note("step 0: [aime24] avg@8 0.1")
    assert "step 0: [aime24] avg@8 0.1" in out.getvalue()


def test_the_bar_ends_when_the_block_raises():
    console = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(ValueError, match="boom"), Progress(console, "train", 3):
        raise ValueError("boom")
    with Progress(console, "again", 1) as progress:  # rich refuses a second live display
        progress.step(1, METRICS)


def test_time_left_neither_counts_the_first_step_nor_those_before_a_resume(clock):
    out = io.StringIO()
    with Progress(Console(file=out, width=200), "train", 104, line_every=1) as progress:
        for step, now in ((101, 60.0), (102, 65.0), (103, 70.0), (104, 75.0)):
            clock.now = now
            progress.step(step, {})
    assert out.getvalue().splitlines() == [
        "train 101/104",
        "train 102/104 (10s left)",
        "train 103/104 (5s left)",
        "train 104/104",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(42.4, "42s"), (59.6, "1m00s"), (187, "3m07s"), (3600, "1h00m"), (7500, "2h05m")]
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize("terminal", [False, True])
def test_reading_is_shown_once_it_takes_a_moment(clock: Clock, terminal: bool) -> None:
    out = io.StringIO()
    with Reading(Console(file=out, force_terminal=terminal, width=80)) as reading:
        for done in (1, 2):
            clock.now += 1.0
            reading("quick.parquet", done, 2)
        clock.now += 1.5
        reading("slow.parquet", 40, 400)
        assert out.getvalue() == ""
        for done in range(80, 401, 40):
            clock.now += 5.0
            reading("slow.parquet", done, 400)
    if terminal:
        assert "reading slow.parquet" in out.getvalue()
    else:
        assert out.getvalue().splitlines() == [
            "reading slow.parquet 80/400",
            "reading slow.parquet 160/400 (30s left)",
            "reading slow.parquet 240/400 (20s left)",
            "reading slow.parquet 320/400 (10s left)",
            "reading slow.parquet 400/400",
        ]
