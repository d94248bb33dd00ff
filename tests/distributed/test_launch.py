"""From a job to its ranks and back: what ranks are told, and what the job returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from ampo_registry import ConfigError, RunError
from ampo_registry.discovery import discover

from ampo_core.config.load import LoadedConfig, load_config
from ampo_core.distributed import launch
from ampo_core.distributed.launch import Launch, run_ranks
from ampo_core.distributed.outcome import Order, read_order
from ampo_core.distributed.starters import DeepSpeedRanks
from ampo_core.jobs import table as jobs
from ampo_core.run.environment import Environment

PARENT = """\
import subprocess, sys, time
child = "import time; from ampo_core.run.parent import end_with_parent as e; e(); print(1, flush=True); time.sleep(60)"
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
assert process.stdout.readline() == b"1\\n"
print(process.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedConfig:
    config = tmp_path / "c.yaml"
    config.write_text("job: sft\nmodel: {path: m}\ndata: {train: [t]}\nresources: {devices: 2}\n")
    return load_config(config, [f"run.dir={tmp_path}", "run.name=x"])


def environment_of(loaded: LoadedConfig, *plugin_files: Path, **options: Any) -> Environment:
    return Environment.of(loaded, discover(plugin_files), **options)


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Ranks that write the `done` marker and do nothing else; what they were told."""
    told: list[dict[str, Any]] = []

    def ranks(starter: object, folder: Path) -> None:
        loaded = load_config(folder / "config.yaml")
        told.append({"order": read_order(folder), "yaml": loaded.yaml, "folder": folder})
        run = loaded.job.run.folder
        run.mkdir()
        (run / "done").write_text(json.dumps({"output": "checkpoints/step-1/policy"}))

    monkeypatch.setattr(launch, "supervise", ranks)
    return told


def test_ranks_get_the_resolved_config_and_the_job_returns_its_output(loaded, supervised, tmp_path):
    plugin = tmp_path / "some_plugin_file.py"
    plugin.write_text("from ampo_registry import hookimpl\n@hookimpl\ndef ampo_specs():\n    return []\n")
    environment = environment_of(loaded, plugin, trust_remote_code=True)
    assert run_ranks(Launch(2), loaded.job, environment) == tmp_path / "x/checkpoints/step-1/policy"
    (told,) = supervised
    assert told["yaml"] == loaded.yaml
    assert told["order"] == Order(2, [str(plugin)], trust_remote_code=True, allow_changes=False)
    assert not told["folder"].exists()


def test_ranks_of_other_machines_find_their_orders_beside_the_run(loaded, supervised, tmp_path, monkeypatch):
    monkeypatch.setattr(DeepSpeedRanks, "check", lambda self: None)
    run_ranks(Launch(2, 2, hosts=("a", "b"), hostfile="h"), loaded.job, environment_of(loaded))
    assert supervised[0]["folder"].parent == tmp_path
    assert supervised[0]["order"].ranks == 4


def test_a_job_that_asks_for_devices_is_launched(loaded, monkeypatch):
    asked: list[Launch] = []
    monkeypatch.setattr(jobs, "run_ranks", lambda plan, job, environment: asked.append(plan) or Path("policy"))
    for name in ("RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert jobs.run_job(loaded.job, environment_of(loaded)) == Path("policy")
    assert asked == [Launch(2)]


def test_ranks_that_end_well_without_a_done_marker_are_an_error(loaded, monkeypatch):
    monkeypatch.setattr(launch, "supervise", lambda starter, folder: None)
    with pytest.raises(RunError, match=r"all ranks ended well, but .*/x is not marked as done"):
        run_ranks(Launch(2), loaded.job, environment_of(loaded))


def test_cuda_has_the_last_word_on_gpus(loaded, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"resources.devices: found 2, but this machine has 1 GPU"):
        run_ranks(Launch(2), loaded.job, environment_of(loaded))


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_rank_ends_with_the_process_that_started_it():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert parent.stdout is not None
    rank = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
