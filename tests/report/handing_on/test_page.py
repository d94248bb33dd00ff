"""docs/handing-on.md: its code runs, its tables are complete, and its command uploads to what answers like the Hub."""

from __future__ import annotations

import base64
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ampo_core.report.budget import Budget
from ampo_core.report.spent import read_spent
from tests.report.handing_on.conftest import Handed

pytestmark = pytest.mark.process

PAGE = Path(__file__).parents[3].joinpath("docs/handing-on.md").read_text(encoding="utf-8")
POLICY = "runs/ampo/checkpoints/step-000500/policy"


def shell_lines(start: str) -> list[str]:
    """The lines of the page's shell blocks that begin with `start`."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith(start)]


@pytest.mark.parametrize("name", ["transformers", "budget"])
def test_its_code_runs(name: str, lora: Handed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = re.search(rf"<!-- run: {name} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    script = tmp_path / "page.py"
    text = block[1].replace(POLICY, str(lora.policy)).replace('"runs/ampo"', repr(str(lora.run)))
    assert "runs/ampo" not in text
    script.write_text(text)
    runpy.run_path(str(script))
    shown = capsys.readouterr().out
    if name == "budget":
        assert shown == f"{read_spent(lora.run).own.line()}\n0 0\n"


def test_its_tables_are_complete(guided: Handed) -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert {path.name for path in guided.policy.iterdir()} | {field.name for field in fields(Budget)} == named


class FakeHub(BaseHTTPRequestHandler):
    """Takes repositories and commits as the Hub does for small files; keeps what came in `server.files`."""

    server: Any

    def do_GET(self) -> None:
        self.answer({"sha": "0" * 40, "id": "me/model", "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        address = f"http://127.0.0.1:{self.server.server_port}/me/model"
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self.answer({"url": address, "id": "me/model"})
        elif self.path == "/api/validate-yaml":
            self.server.card = json.loads(body)["content"]
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            self.answer({"files": files})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"success": True, "commitOid": "1" * 40, "commitUrl": f"{address}/commit/{'1' * 40}"})
        else:
            self.send_error(404, self.path)

    def answer(self, value: Any) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: Any) -> None:
        self.server.asked.append(format % arguments)


@pytest.fixture
def hub() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    server.files, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_its_command_uploads_the_policy(guided: Handed, hub: Any) -> None:
    (line,) = shell_lines("hf upload")
    arguments = shlex.split(line.replace("YOUR-NAME/YOUR-MODEL", "me/model").replace(POLICY, str(guided.policy)))
    command = [str(Path(sys.executable).with_name(arguments[0])), *arguments[1:]]
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_not_a_token",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.stderr[-3000:], hub.asked)
    assert "private" in json.dumps(hub.created), hub.created
    assert hub.card == (guided.policy / "README.md").read_text()
    assert hub.files == {path.name: path.read_bytes() for path in guided.policy.iterdir()}
