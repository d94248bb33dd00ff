"""Several nodes: two network namespaces that meet over a link, and DeepSpeed's launcher with a host file.

The launcher is real, and so is everything that it starts; `ssh` and `pdsh` are scripts that stay on this machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.conftest import WAIT_S

pytestmark = pytest.mark.process

SSH = """\
#!/bin/bash
while [ "$1" = -o ]; do shift 2; done
shift
[ "$*" = "hostname -I" ] && echo 127.0.0.1 && exit
exec bash -c "$*"
"""
PDSH = """\
#!/bin/bash
hosts=${5//,/ }; shift 5; number=0; worst=0
for host in $hosts; do bash -c "${*//%n/$number}" & started="$started $!"; number=$((number + 1)); done
for one in $started; do wait $one; code=$?; [ $code -gt $worst ] && worst=$code; done
exit $worst
"""


def ip(*arguments: str) -> None:
    found = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"ip {' '.join(arguments)}: {found.stderr.strip()}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces, 10.77.0.1 and 10.77.0.2, with a link `link0` between them."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("network namespaces need Linux and iproute2")
    if os.geteuid() != 0:
        pytest.skip("making network namespaces needs root")
    names = (f"ampo-{uuid.uuid4().hex[:8]}", f"ampo-{uuid.uuid4().hex[:8]}")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "link0")
            ip("-n", name, "link", "set", "link0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def exit_codes(nodes: list[Any]) -> list[int | None]:
    """How all have ended; None for what still runs when another has failed, which it may wait for, or at the end."""
    deadline = time.monotonic() + WAIT_S
    while None in (codes := [node.process.poll() for node in nodes]) and not any(codes):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return codes


def test_two_hosts_train_together(configs: Any, start: Any, tmp_path: Path, hosts: tuple[str, str]) -> None:
    arguments = (configs("sft"), f"run.dir={tmp_path}", "run.name=hosts", "resources.devices=1", "resources.nodes=2")
    nodes = [
        start(
            *arguments,
            under=("ip", "netns", "exec", name),
            NODE_RANK=str(number),
            MASTER_ADDR="10.77.0.1",
            GLOO_SOCKET_IFNAME="link0",
        )
        for number, name in enumerate(hosts)
    ]
    assert exit_codes(nodes) == [0, 0], "\n\n".join(node.stacks() for node in nodes)
    assert "sft 2/2" in nodes[0].said
    assert "sft" not in nodes[1].said
    assert (tmp_path / "hosts/done").exists()


def test_a_host_file_starts_all_nodes_and_a_signal_reaches_them(configs: Any, start: Any, tmp_path: Path) -> None:
    for name, script in (("ssh", SSH), ("pdsh", PDSH)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "hosts").write_text("node-a slots=1\nnode-b slots=1\n")
    resources = ("resources.devices=1", "resources.nodes=2", f"resources.hostfile={tmp_path / 'hosts'}")
    run = start(
        configs("sft"),
        f"run.dir={tmp_path}",
        "run.name=nodes",
        "training.epochs=100000",
        *resources,
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        MASTER_PORT=str(free_port()),
    )
    run.wait_for("sft 1/200000")
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 3, run.said
    assert run.survivors() == []
    assert "ampo-run: interrupted\nstopped after step" in run.said
    assert list((tmp_path / "nodes/checkpoints").glob("step-*"))
    assert not list(tmp_path.glob(".ampo-ranks-*"))
