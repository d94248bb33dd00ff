"""Shards of an endpoint asked for directly: what servers send, what journals hold, and errors of one of two ranks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from ampo_registry import Message, Question, RunError

from ampo_core.config.pool_job import PoolEndpoint, PoolTeacher
from ampo_core.distributed.ranks import Ranks
from ampo_core.jobs.pool.asking import Asking
from ampo_core.jobs.pool.endpoint import Endpoint
from ampo_core.jobs.pool.job import Build
from ampo_core.jobs.pool.shards import Answer, TeacherShards, cut
from tests.jobs.pool.server import ChatServer

QUESTIONS = tuple(Question(f"uid{i}", (Message("user", f"What is {i}?"),), (1,), str(i), "sums") for i in range(3))
(SHARD,) = cut(QUESTIONS, 3)


@dataclass(frozen=True)
class Thread(Ranks):
    """One of two ranks that are threads."""

    box: dict[int, Any]
    barrier: threading.Barrier

    def each(self, value: Any) -> list[Any]:
        self.box[self.rank] = value
        self.barrier.wait(20)
        values = [self.box[0], self.box[1]]
        self.barrier.wait(20)
        return values

    def first(self, value: Any) -> Any:
        return self.each(value)[0]

    def gather(self, shard: Sequence[Any], total: int) -> list[Any]:
        parts = self.each(list(shard))
        return [parts[i % 2][i // 2] for i in range(total)]


def together(act: Callable[[Ranks], object]) -> list[object]:
    """What `act` returned or raised on each of two ranks."""
    box: dict[int, Any] = {}
    barrier = threading.Barrier(2)
    ended: list[object] = [None, None]

    def one(rank: int) -> None:
        try:
            ended[rank] = act(Thread(rank, 2, torch.device("cpu"), box, barrier))
        except Exception as error:
            ended[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ended


@pytest.fixture
def server() -> Iterator[ChatServer]:
    chat = ChatServer()
    yield chat
    chat.close()


@pytest.fixture
def files(tmp_path: Path) -> TeacherShards:
    made = TeacherShards.of(tmp_path, "far", {}, {})
    made.open({})
    return made


@pytest.fixture
def far(server: ChatServer, files: TeacherShards) -> Callable[..., list[Answer]]:
    """Asks `server` for two answers to each question; options are those of the endpoint."""

    def ask(ranks: Ranks | None = None, **options: Any) -> list[Answer]:
        config = PoolEndpoint(**{"url": server.url, "model": "big", "concurrency": 2, "retries": 0, **options})
        teacher = PoolTeacher(name="far", endpoint=config)
        alone = Ranks(0, 1, torch.device("cpu"))
        return Endpoint(config, teacher, Asking(0, "far", "keep", 2), ranks or alone, files).answer(SHARD)

    return ask


def completion(content: object) -> str:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    return json.dumps({"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})


NONE = {
    "no choices": ("{}", "holds no choice"),
    "no choice": ('{"choices": []}', "holds no choice"),
    "no JSON": ("<html>", "its answer is no JSON"),
    "no text": (completion([{"type": "image", "image": "x"}]), "its content holds parts that are no text"),
    "a number": (completion(5), "its answer cannot be read: TypeError"),
    "no completion": ('{"choices": [5]}', "its answer cannot be read: AttributeError"),
}


@pytest.mark.parametrize(("body", "said"), NONE.values(), ids=NONE.keys())
def test_an_answer_that_is_none(far: Any, server: ChatServer, body: str, said: str) -> None:
    server.pause = 0.2  # the bad answer is there before the other under way
    server.faults.append((200, {}, body))
    with pytest.raises(RunError, match=rf"request for question uid0 failed: .*{said}") as caught:
        far()
    assert "of the 6 answers that this shard lacked were finished and are kept" in str(caught.value)
    server.pause = 0.0
    assert len(far()) == 6
    assert len(server.asked) == 7


def test_a_content_in_parts_is_joined(far: Any, server: ChatServer) -> None:
    server.faults.append((200, {}, completion([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])))
    assert far(concurrency=1)[0].text == "ab"


def test_a_server_that_cannot_be_reached(far: Any, server: ChatServer) -> None:
    server.close()
    with pytest.raises(RunError, match=r"failed: APIConnectionError"):
        far(retries=1)


def test_nothing_of_the_environment_is_sent(far: Any, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "mine-alone")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Team: mine-alone\nAuthorization: mine-alone")
    far()
    assert len(server.headers) == 6
    assert "mine-alone" not in str(server.headers)


def test_a_text_may_hold_every_kind_of_line_separator(far: Any, server: ChatServer, files: TeacherShards) -> None:
    text = "a\u2028b\u2029c\x85d\re\nf"
    server.faults.extend([(200, {}, completion(text)), (403, {}, "{}")])
    with pytest.raises(RunError):
        far(concurrency=1)
    (found,) = files.journaled(SHARD).values()
    assert found.text == text


def test_only_the_end_of_a_journal_may_be_damaged(files: TeacherShards) -> None:
    whole = b'{"uid": "u", "sample": 0, "text": "t", "finish_reason": "stop"}\n'
    path = files.journal(SHARD, 0, 0)
    path.write_bytes(whole + b'{"uid": "half\xe2')
    assert list(files.journaled(SHARD)) == [("u", 0)]
    path.write_bytes(whole + b'{"uid": "half\n' + whole)
    with pytest.raises(RunError, match=rf"{path.name}, line 2: not an answer: .*; remove that line"):
        files.journaled(SHARD)


def test_two_ranks_share_the_requests(far: Any) -> None:
    first, second = together(far)
    assert first == second == far()


def test_an_error_of_one_rank_is_an_error_of_both(
    far: Any, files: TeacherShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.journal(SHARD, 0, 1).mkdir()
    monkeypatch.setattr(TeacherShards, "journaled", lambda *arguments: {})
    monkeypatch.setattr(TeacherShards, "journals", lambda *arguments: [])
    ended = together(far)
    assert [type(error) for error in ended] == [RunError, RunError]
    assert all("cannot write" in str(error) for error in ended), ended


def test_what_the_first_rank_cannot_open_is_an_error_of_both(build: Any, plugins: Any) -> None:
    from ampo_core.config.load import load_config

    made = build()
    job = load_config(made.write(), (), plugins).job
    made.run.mkdir()
    (made.run / "shards").write_text("in the way")

    def opening(ranks: Ranks) -> object:
        return Build(job, None, ranks, None, None, {}, []).answered(job.teachers[1], 0)  # type: ignore[arg-type]

    ended = together(opening)
    assert [type(error) for error in ended] == [RunError, RunError]
    assert all("teacher book: cannot write" in str(error) for error in ended)
