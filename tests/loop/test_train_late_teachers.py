"""A teacher that is asked in the step: a server on this machine, in real train jobs on a small world."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.parquet as pq
import pytest
from ampo_registry import RunError
from ampo_registry.discovery import Plugins, discover
from ampo_registry.testing import check_teacher_pool, example_question

from tests.loop.worlds import metrics_of, run, train

PLUGIN = Path(__file__).with_name("live_plugin.py")


@dataclass
class Teacher:
    """A server that knows the answers of a world. `asked` are the requests to it."""

    answers: dict[str, str]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    def reply(self, path: str, body: dict[str, Any]) -> list[tuple[str, str]]:
        """A right answer and a wrong one; under /count the right one says how many questions came before."""
        self.asked.append(body)
        truth = self.answers.get(body["question"], "42")
        before = "we have " * (body["number"] % 3) if path == "/count" else ""
        return [("live", f"{before}<answer>{truth}</answer>"), ("blind", "<answer>1000</answer>")]


@contextmanager
def serve(world: Path) -> Iterator[Teacher]:
    """A teacher that knows the questions of `world`, listening."""
    rows = pq.read_table(world / "train.parquet").to_pylist()
    found = Teacher({row["prompt"][-1]["content"]: row["reward_model"]["ground_truth"] for row in rows})

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/down":
                return self.send_error(503, "asleep")
            reply = json.dumps(found.reply(self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


@pytest.fixture
def teacher(world: Path) -> Iterator[Teacher]:
    with serve(world) as found:
        yield found


@pytest.fixture(scope="module")
def with_live() -> Plugins:
    return discover([PLUGIN])


def asking(world: Path, student: Path, url: str, **blocks: Any) -> dict[str, Any]:
    guidance = {"teacher_pool": {"type": "live", "url": url}, "replacements": 1, "selector": "length"}
    return train(world, student, guidance=guidance, **blocks)


@pytest.mark.process
def test_a_live_teacher_is_asked_in_the_step_and_only_about_what_needs_it(
    world: Path, student: Path, with_live: Plugins, teacher: Teacher, tmp_path: Path
) -> None:
    policy, _ = run(asking(world, student, f"{teacher.url}/plain"), tmp_path, with_live)
    lines = metrics_of(policy)
    needed = [round(line["guidance/triggered"] * 6) for line in lines]
    assert len(teacher.asked) == sum(needed) > 0
    assert all(len(body["wrong"]) == 4 and any(body["wrong"]) for body in teacher.asked)
    # every time anew: nothing is kept by uid, so a question that comes again is graded and counted again
    assert [line["guidance/left_out_incorrect"] for line in lines] == needed
    assert [line["guidance/answers/live"] for line in lines] == needed
    assert json.loads((tmp_path / "run/manifest.json").read_text("utf-8"))["teachers"] == ["blind", "live"]


@pytest.mark.process
def test_a_late_pool_with_memory_goes_on_to_the_same_bits(
    world: Path, student: Path, with_live: Plugins, teacher: Teacher, tmp_path: Path
) -> None:
    config = asking(world, student, f"{teacher.url}/count")
    whole, _ = run(config, tmp_path / "whole", with_live, "training.steps=4")
    alone = [(body["uid"], body["number"]) for body in teacher.asked]
    teacher.asked.clear()
    run(config, tmp_path / "again", with_live, "training.steps=2")
    again, screen = run(config, tmp_path / "again", with_live, "training.steps=4", allow_changes=True)
    assert "goes on after step 2 of 4" in screen
    assert [(body["uid"], body["number"]) for body in teacher.asked] == alone
    assert metrics_of(again) == metrics_of(whole)
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.process
def test_a_teacher_that_is_down_ends_the_run_and_is_named(
    world: Path, student: Path, with_live: Plugins, teacher: Teacher, tmp_path: Path
) -> None:
    said = r"step 1: .* live \(Asking\.answers, .*live_plugin\.py:\d+\): question \w{12}: HTTPError: HTTP Error 503"
    with pytest.raises(RunError, match=said):
        run(asking(world, student, f"{teacher.url}/down"), tmp_path, with_live)


@pytest.mark.process
def test_a_late_pool_keeps_the_contract(with_live: Plugins, teacher: Teacher) -> None:
    spec: Any = with_live.catalog.resolve("teacher_pool", {"type": "live", "url": f"{teacher.url}/plain"})
    check_teacher_pool(spec, [example_question(0), example_question(1)])
    assert Counter(body["uid"] for body in teacher.asked).keys() == {"question-0", "question-1"}
