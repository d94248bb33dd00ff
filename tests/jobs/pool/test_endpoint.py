"""Teachers behind a server: a real one on this machine, with rate limits, errors, slow answers and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ampo_registry import RunError

from tests.jobs.pool.server import ChatServer

pytestmark = pytest.mark.process

KEY = "sk-not-to-be-seen"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    chat = ChatServer()
    yield chat
    chat.close()


@pytest.fixture
def asking(build: Callable[..., Any], server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A build of the one teacher behind `server`; keys are those of its endpoint."""
    monkeypatch.setenv("POOL_KEY", KEY)

    def make(teacher: dict[str, Any] | None = None, **endpoint: Any) -> Any:
        options = {"url": server.url, "model": "big", "key_env": "POOL_KEY", "concurrency": 4, **endpoint}
        teachers = [{"name": "far", "endpoint": options, "max_response_tokens": 50, **(teacher or {})}]
        return build(teachers=teachers, compositions={}, rollout={"type": "vllm"})

    return make


def answers(built: Any) -> list[dict[str, Any]]:
    return [row for path in built.shards("far") if "answers" in path.name for row in pq.read_table(path).to_pylist()]


def test_every_answer_comes_through_whatever_the_server_does(asking: Any, server: ChatServer) -> None:
    server.pause = 0.01
    server.faults.extend([(429, {"Retry-After": "0.2"}, "{}"), (500, {}, "oh"), (503, {}, "{}"), 8.0, (408, {}, "")])
    built = asking(timeout_s=4.0, retries=4)  # a busy machine may take a second to answer
    built()
    found = answers(built)
    assert len(found) == 30
    assert all(row["text"].startswith("What is") for row in found)
    assert len({row["text"] for row in found}) == 30
    summary = built.summary["teachers"]["far"]
    assert (summary["prompt_tokens"], summary["tokens"], summary["requests_repeated"]) == (210, 330, 5)
    assert len(server.asked) == 35
    assert set(server.paths) == {"/v1/chat/completions"}
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert 2 <= server.busiest <= 5  # one that ran out of time may still be busy there
    request = server.asked[-1]
    assert (request["model"], request["temperature"], request["top_p"], request["max_tokens"]) == ("big", 0.6, 1.0, 50)
    assert [turn["role"] for turn in request["messages"]] == ["system", "user"]


def test_the_key_is_written_nowhere(asking: Any, server: ChatServer) -> None:
    server.refuse_after = 6
    built = asking()
    with pytest.raises(RunError) as caught:
        built()
    for text in (str(caught.value), built.said, *(p.read_text("utf-8", "replace") for p in built.run.rglob("*.*"))):
        assert KEY not in text
    assert "no more for Bearer …" in str(caught.value)


def test_a_request_that_fails_for_good_stops_the_build_and_nothing_is_asked_twice(
    asking: Any, server: ChatServer
) -> None:
    server.refuse_after = 17
    built = asking()
    with pytest.raises(RunError, match=r"teacher far: .*model big: a request for question .* failed: .*403") as caught:
        built()
    assert "5 of the 12 answers that this shard lacked were finished and are kept" in str(caught.value)
    server.refuse_after = None
    refused = len(server.asked) - 17
    built()
    assert "teacher far: 1 of 3 shards are there already" in built.said
    assert len(server.asked) == 30 + refused
    assert len(answers(built)) == len({(row["uid"], row["sample"]) for row in answers(built)}) == 30
    assert list(built.run.glob("shards/*/*.jsonl")) == []


def test_what_came_before_a_crash_is_kept(asking: Any, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from ampo_core.jobs.pool.shards import TeacherShards

    whole = asking()
    whole()
    count = len(server.asked)
    write = TeacherShards.write_answers

    class Crash(BaseException):
        pass

    def dying(*arguments: Any) -> None:
        raise Crash

    broken = asking()
    monkeypatch.setattr(TeacherShards, "write_answers", dying)
    with pytest.raises(Crash):
        broken()
    (journal,) = broken.run.glob("shards/*/*.jsonl")
    with journal.open("a") as file:
        file.write('{"uid": "half a li')
    monkeypatch.setattr(TeacherShards, "write_answers", write)
    broken()
    assert len(server.asked) == 2 * count
    assert broken.files() == whole.files()


def test_options_of_the_request(asking: Any, server: ChatServer) -> None:
    server.reasoning = "\nfirst this\n"
    built = asking(
        {"system_prompt": "Think."},
        seed=False,
        limit_key="max_completion_tokens",
        extra_body={"top_k": 20, "chat_template_kwargs": {"enable_thinking": True}},
        key_env=None,
    )
    built("data.limit=1")
    request = server.asked[0]
    assert "seed" not in request
    assert "max_tokens" not in request
    assert (request["max_completion_tokens"], request["top_k"]) == (50, 20)
    assert request["chat_template_kwargs"] == {"enable_thinking": True}
    assert request["messages"][0] == {"role": "system", "content": "Think."}
    assert answers(built)[0]["text"] == "<think>\nfirst this\n</think>\n\nWhat is 0 + 1? None"
    apart = asking(reasoning="leave_out")
    apart("data.limit=1")
    assert answers(apart)[0]["text"].startswith("What is 0 + 1?")


def test_answers_that_did_not_end_are_counted_and_not_graded(asking: Any, server: ChatServer) -> None:
    server.finish = "content_filter"
    built = asking()
    built("data.limit=2")
    assert built.summary["teachers"]["far"]["ended_otherwise"] == 6
    assert json.loads((built.run / "manifest.json").read_text())["teachers"] == ["far"]
    again = asking()
    server.finish = "length"
    again("data.limit=2")
    assert again.summary["teachers"]["far"]["cut_off"] == 6


def test_seeds_are_those_of_the_question(asking: Any, server: ChatServer, tmp_path: Path) -> None:
    asking()("data.limit=4")
    first = server.finished()
    server.asked.clear()
    asking(concurrency=1)("data.limit=4", "shard_questions=1")
    assert server.finished() == first
    assert len(first) == 12
