"""`python -m ampo_core.cli.rank FOLDER`: one rank of a run that `ampo-run` has started as several processes.

It says nothing itself about how it ends: it leaves that in FOLDER, and the process that started it speaks once for all.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

from ampo_registry.discovery import discover
from ampo_registry.errors import AmpoError

from ampo_core.cli.output import accept_any_text
from ampo_core.config.load import load_config
from ampo_core.config.machines import ALONE
from ampo_core.distributed.outcome import Outcome, announce, leave, outcomes, read_order
from ampo_core.jobs.table import run_job
from ampo_core.run.environment import Environment
from ampo_core.run.interrupt import INTERRUPTED, terminating
from ampo_core.run.parent import end_with_parent

ERROR_S = 2.0
"""How long a failed rank waits for the others to say what they have met: usually the same."""
INTERRUPT_S = 60.0
"""How long one that was interrupted in good order does: the launcher ends the others as soon as one has left."""


def main(folder: Path) -> int:
    """Run this rank's part of the job in `folder`; returns the exit code."""
    accept_any_text()
    # The first thing a watcher of this process may ask, and the components of a job too: see interrupt.py.
    os.environ["AMPO_LAUNCHED"] = str(folder)
    os.environ.pop(ALONE, None)
    rank = int(os.environ["RANK"])
    outcome = _run(folder, rank)
    leave(folder, rank, outcome)
    if outcome.kind != "done":
        _wait_for_others(folder, INTERRUPT_S if outcome.kind == "interrupted" and outcome.text else ERROR_S)
    return outcome.exit_code


def _run(folder: Path, rank: int) -> Outcome:
    try:
        with terminating():
            end_with_parent()
            announce(folder, rank, os.getpid())
            order = read_order(folder)
            plugins = discover(order.plugins)
            loaded = load_config(folder / "config.yaml", (), plugins)
            environment = Environment.of(
                loaded, plugins, trust_remote_code=order.trust_remote_code, allow_changes=order.allow_changes
            )
            run_job(loaded.job, environment)
    except KeyboardInterrupt:
        return Outcome("interrupted", INTERRUPTED)
    except BaseException as error:
        trace = traceback.format_exc()
        if _has_lost_another(error):
            return Outcome(
                "lost", 1, f"the connection to another rank broke, which may have ended:\n{error}", trace=trace
            )
        if not isinstance(error, AmpoError):
            return Outcome("fault", 1, trace)
        asked_for = error.exit_code == INTERRUPTED
        return Outcome("interrupted" if asked_for else "error", error.exit_code, str(error), trace=trace)
    return Outcome("done", 0)


def _has_lost_another(error: BaseException) -> bool:
    """True if `error`, or what a plugin met that made it, is what torch's communication libraries raise where a peer is
    gone."""
    name, text = type(error).__name__, str(error).lower()
    lost = name.startswith("Dist") or ("gloo" in text and ("connection" in text or "timed out" in text))
    return lost or (error.__cause__ is not None and _has_lost_another(error.__cause__))


def _wait_for_others(folder: Path, seconds: float) -> None:
    ranks, deadline = read_order(folder).ranks, time.monotonic() + seconds
    while time.monotonic() < deadline and len(outcomes(folder)) < ranks:
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
