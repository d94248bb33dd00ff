"""A run on a file system that is really full."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ampo_core.run.disk import size_of
from tests.forge import COMMAND, own_environment
from tests.run.conftest import PLUGIN, Runs

pytestmark = [pytest.mark.process, pytest.mark.slow]

# In namespaces of its own, where a user may mount; the folder is filled to the last byte before the second call.
SCRIPT = """
mount -t tmpfs -o size=$1 tmpfs $2 || exit 77
shift 2
"$@"; echo "exit $?"
cat /dev/zero > $OUT/filler 2>/dev/null
"$@"; echo "exit $?"
rm $OUT/filler
mount -o remount,size=64m $OUT
"$@"; echo "exit $?"
cp -r $OUT/full $KEPT
"""


def test_a_run_on_a_full_disk_says_so_cleans_up_and_goes_on(runs: Runs, tmp_path: Path) -> None:
    every = ("checkpoint.every=1", "training.steps=3")
    whole = runs("train.yaml", "full", *every)
    assert whole.code == 0, whole.err
    room = int(1.5 * size_of(runs.folder("full") / "checkpoints/step-000003"))
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    config = str(runs.configs / "train.yaml")
    command = [*COMMAND, config, "run.name=full", f"run.dir={mounted}", *every, "--plugin", str(PLUGIN)]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", str(room), str(mounted), *command],
        env=own_environment(OUT=str(mounted), KEPT=str(runs.configs / "runs/kept")),
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=1800,
    )
    if done.returncode == 77 or "unshare" in done.stdout:
        pytest.skip(f"a file system cannot be mounted here: {done.stdout}")
    first, second, third, _ = done.stdout.split("exit ")
    assert "Traceback" not in done.stdout
    assert f"step-000002: the file system at {mounted} is full (0 B of" in first
    assert "step-000001 is whole, and the run goes on there" in first
    assert f"the file system at {mounted} is full (0 B of" in second.partition("\n")[2], second
    assert "goes on after step 1 of 3" in third
    assert done.stdout.endswith("exit 0\n")
    runs.assert_equal("full", "kept")
