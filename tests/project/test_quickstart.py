"""The quickstart as a newcomer runs it: whole, for real, offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = str(Path(sys.executable).with_name("ampo-run"))


def quickstart(runs: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [RUN, "configs/quickstart.yaml", f"run.dir={runs}"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_quickstart_ends_with_a_table_a_picture_and_ampo_ahead(tmp_path):
    done = quickstart(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    folder = tmp_path / "quickstart" / "evaluate"
    assert folder.joinpath("curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    models = json.loads(folder.joinpath("results.json").read_text())["models"]
    average = {name: {level: entry["avg"]["value"] for level, entry in sets.items()} for name, sets in models.items()}
    assert set(average) == {"start", "grpo", "ampo"}
    assert average["start"]["level2"] > 0.4
    assert average["start"]["level4"] < 0.1
    assert average["ampo"]["level4"] > average["grpo"]["level4"] + 0.2
    assert "Nothing here says how the methods compare on real tasks" in " ".join(done.stdout.split())

    again = quickstart(tmp_path)
    assert again.returncode == 0
    assert folder.joinpath("results.json").exists()
