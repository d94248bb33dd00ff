"""Who starts the ranks: this process alone, a launcher that is there already, torch elastic, DeepSpeed's launcher."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from ampo_registry import ConfigError

from ampo_core.config import machines
from ampo_core.config.jobs import PipelineJob, SftJob
from ampo_core.config.load import load_config
from ampo_core.config.machines import ALONE, rank_in, read_hostfile, under_launcher, unmet_resources, visible_gpus
from ampo_core.config.tree import ResourcesConfig
from ampo_core.distributed.launch import Launch, plan_launch
from ampo_core.distributed.starters import DeepSpeedRanks


def job(**resources: Any) -> SftJob:
    return SftJob(model={"path": "m"}, data={"train": ["t"]}, resources=resources)


PIPELINE = PipelineJob(stages=[{"name": "a", "config": "a.yaml"}])
RANK = {"RANK": "1", "WORLD_SIZE": "4"}


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch):
    monkeypatch.setattr(machines, "_DRIVER", Path("/nowhere"))


@pytest.fixture
def hosts(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# the cluster\nnode-a slots=4\n\nnode-b slots=8  # newer\nnode-c slots=1\n")
    return str(path)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """ssh and pdsh are installed."""
    for name in ("ssh", "pdsh"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_one_device_is_this_process_and_several_are_ranks():
    assert plan_launch(job(), {}) is None
    assert plan_launch(job(devices=3), {}) == Launch(3)
    assert plan_launch(PIPELINE, {}) is None


def test_ranks_of_a_launcher_join_it():
    assert plan_launch(job(devices=4), RANK) is None
    assert plan_launch(job(devices=2, nodes=2), RANK) is None
    assert plan_launch(PIPELINE, {"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert rank_in(RANK) == 1
    assert rank_in({}) == 0


def test_another_number_of_ranks_than_the_launcher_s_is_refused_with_both():
    with pytest.raises(ConfigError, match=r"has started 4 ranks, but resources.devices × resources.nodes = 2"):
        plan_launch(job(devices=2), RANK)
    with pytest.raises(ConfigError, match=r"a pipeline job runs as one process.*one of 4 ranks"):
        plan_launch(PIPELINE, RANK)


def test_a_process_that_made_itself_a_rank_is_under_no_launcher():
    """As an earlier stage of a pipeline does with its one device."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "node-a", ALONE: "1"}
    assert not under_launcher(alone)
    assert plan_launch(job(devices=2), alone) == Launch(2)


def test_a_node_starts_its_own_ranks_where_its_number_is_known(hosts):
    environ = {"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1"}
    assert plan_launch(job(devices=2, nodes=2), environ) == Launch(2, 2, 1, "10.0.0.1:29500")
    assert plan_launch(job(devices=2, nodes=2), {**environ, "MASTER_PORT": "4"}) == Launch(2, 2, 1, "10.0.0.1:4")
    plan = plan_launch(job(devices=2, nodes=2, hostfile=hosts), {"NODE_RANK": "1"})
    assert plan == Launch(2, 2, 1, "node-a:29500")


def test_a_host_file_goes_through_deepspeed_s_launcher(hosts, programs):
    plan = plan_launch(job(devices=4, nodes=2, hostfile=hosts), {})
    assert plan == Launch(4, 2, hosts=("node-a", "node-b"), hostfile=hosts)
    ranks = DeepSpeedRanks(Path("/shared/f"), hosts, ("node-a", "node-b"), 4)
    assert ranks.command({"MASTER_ADDR": "10.0.0.1"}) == [
        *(sys.executable, "-m", "deepspeed.launcher.runner", "--quiet", "--no_ssh_check", "--hostfile", hosts),
        *("--num_nodes", "2", "--num_gpus", "4", "--no_local_rank", "--master_addr", "10.0.0.1"),
        *("--module", "ampo_core.cli.rank", "/shared/f"),
    ]


@pytest.mark.process
def test_hosts_that_cannot_be_reached_are_named(hosts, tmp_path, monkeypatch):
    (tmp_path / "ssh").write_text('#!/bin/sh\n[ "$5" = node-a ] || { echo Permission denied >&2; exit 255; }\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConfigError) as error:
        DeepSpeedRanks(tmp_path, hosts, ("node-a", "node-b"), 1).check()
    assert str(error.value).endswith("cannot be reached with `ssh HOST`:\n  node-b: Permission denied")


def test_deepspeed_s_launcher_needs_its_programs(hosts, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "ssh").touch(mode=0o755)
    with pytest.raises(ConfigError, match="needs pdsh, which is not installed here; or start the same command"):
        plan_launch(job(nodes=2, hostfile=hosts), {})


@pytest.mark.parametrize(
    ("resources", "environ", "said"),
    [
        ({"nodes": 2}, {}, "resources.nodes: 2 nodes need resources.hostfile .*NODE_RANK .0 to 1. and MASTER_ADDR"),
        ({"nodes": 2}, {"NODE_RANK": "0"}, "resources.nodes: NODE_RANK stands in .* without MASTER_ADDR"),
        ({"nodes": 2}, {"NODE_RANK": "2", "MASTER_ADDR": "a"}, "found 2, but NODE_RANK .* is '2'; expected 0 to 1"),
        ({"nodes": 2}, {"NODE_RANK": "x", "MASTER_ADDR": "a"}, "NODE_RANK .* is 'x'"),
        ({}, {"NODE_RANK": "1"}, "found 1, but NODE_RANK=1 .* another node"),
    ],
)
def test_nodes_that_cannot_meet_are_refused(resources, environ, said):
    with pytest.raises(ConfigError, match=said):
        plan_launch(job(**resources), environ)


def test_a_job_of_one_process_runs_on_one_node_only():
    assert plan_launch(PIPELINE, {"NODE_RANK": "0"}) is None
    with pytest.raises(ConfigError, match="a pipeline job runs on one machine, but NODE_RANK=1"):
        plan_launch(PIPELINE, {"NODE_RANK": "1"})


@pytest.mark.parametrize(
    ("text", "nodes", "devices", "said"),
    [
        ("a slots=1\nb: 4\n", 2, 1, ":2: found 'b: 4', expected 'HOST slots=N'"),
        ("a\n", 1, 1, ":1: found 'a', expected 'HOST slots=N'"),
        ("a slots=1\n\na slots=1\n", 2, 1, ":3: the host a stands twice"),
        ("a slots=4\nb slots=3\n", 2, 4, ":2: b has 3 slots, but resources.devices is 4"),
        ("a slots=4\n", 2, 4, ": names 1 hosts, but resources.nodes is 2"),
        ("# nothing\n", 2, 4, ": names 0 hosts"),
    ],
)
def test_host_files_are_refused_with_their_line(tmp_path, text, nodes, devices, said):
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_hostfile(path, nodes, devices)
    assert str(error.value).startswith(f"{path}{said}")


def test_hosts_beyond_the_nodes_may_be_small(hosts):
    assert read_hostfile(Path(hosts), 2, 4) == ["node-a", "node-b"]


def gpus(tmp_path: Path, count: int) -> Path:
    for number in range(count):
        (tmp_path / f"gpus/0000:{number}").mkdir(parents=True)
    return tmp_path / "gpus"


def test_more_devices_than_gpus_are_refused_with_both_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "_DRIVER", gpus(tmp_path, 2))
    assert visible_gpus({}) == 2
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1"}) == 1
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == 0
    (found,) = unmet_resources(ResourcesConfig(devices=4), {})
    assert found == (("resources", "devices"), "found 4, but this machine has 2 GPUs")
    (found,) = unmet_resources(ResourcesConfig(devices=2), {"CUDA_VISIBLE_DEVICES": "0"})
    assert found[1] == "found 2, but this machine has 1 GPU"
    assert list(unmet_resources(ResourcesConfig(devices=2), {})) == []


def test_without_gpus_ranks_are_cpu_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "_DRIVER", gpus(tmp_path, 2))
    assert list(unmet_resources(ResourcesConfig(devices=64), {"CUDA_VISIBLE_DEVICES": ""})) == []


def test_a_check_says_what_the_machines_lack_and_starts_nothing(tmp_path, monkeypatch, hosts):
    monkeypatch.chdir(tmp_path)
    for name in ("NODE_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "c.yaml"
    config.write_text("job: sft\nmodel: {path: m}\ndata: {train: [t]}\n")
    loaded = load_config(config, ["resources.nodes=4", f"resources.hostfile={hosts}"])
    assert f"command line: resources.hostfile: {hosts}: names 3 hosts, but resources.nodes is 4" in loaded.blockers
    loaded = load_config(config, [f"resources.hostfile={hosts}"])
    assert "command line: resources.hostfile: with resources.nodes = 1 nothing reads this" in loaded.warnings
