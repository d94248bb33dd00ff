"""Run by torch's launcher on every rank: one `ampo-run` after the other, in one start of the ranks."""

from __future__ import annotations

import gc
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

from tests.forge import ROOT, own_environment

BEGINS = "the next command of these ranks"


def in_two_ranks(*commands: Sequence[object]) -> list[str]:
    """What each of these `ampo-run`s prints, on two ranks that start once for all; none of them may fail."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    lines = [shlex.join(map(str, command)) for command in commands]
    done = subprocess.run(
        [*launcher, "-m", "tests.loop.in_ranks", *lines],
        capture_output=True,
        text=True,
        env=own_environment(),
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.split(f"{BEGINS}\n")[1:]


if __name__ == "__main__":
    from ampo_core.cli.main import main

    codes = []
    for line in sys.argv[1:]:
        if os.environ["RANK"] == "0":
            print(BEGINS, flush=True)
        codes.append(main(shlex.split(line)))
        gc.freeze()  # DeepSpeed collects at every start, which goes through all that was imported
    sys.exit(max(codes))
