"""The judge `endpoint` against a real HTTP server that computes a model's log-probs: values, failures, refusals."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ampo_plugins.judges.endpoint import EndpointJudge
from ampo_plugins.judges.transformers import TransformersJudge
from ampo_registry import BuildContext, ConfigError, JudgeRequest, RunError, TokenIds
from ampo_registry import testing as kit

from tests.plugins.judges.conftest import largest_gap, requests
from tests.plugins.judges.server import PromptServer


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ampo_plugins.server.BACKOFF_S", 0.01)


def test_it_gives_the_log_probs_of_the_model_behind_it(
    server: PromptServer, teacher: Path, context: BuildContext
) -> None:
    expected = TransformersJudge(path=str(teacher)).build(context).logprobs(requests(), 1.0)
    for url in (server.url, f"{server.url}/v1", f"{server.url}/v1/"):
        spec = EndpointJudge(url=url)
        kit.check_judge(spec, context)
        assert largest_gap(spec.build(context).logprobs(requests(), 1.0), expected) < 1e-5


def test_a_server_that_applies_temperatures_is_asked_for_them(teacher: Path, context: BuildContext) -> None:
    server = PromptServer(teacher, warms=True)
    spec = EndpointJudge(url=server.url, applies_temperature=True)
    assert spec.refuses(0.7) is None
    spec.check(context)
    other = TransformersJudge(path=str(teacher)).build(context)
    for temperature in (1.0, 0.7, 1.5):
        found = spec.build(context).logprobs(requests(), temperature)
        assert largest_gap(found, other.logprobs(requests(), temperature)) < 1e-5
    server.close()


def test_other_temperatures_are_refused_where_the_server_leaves_them_out(
    server: PromptServer, context: BuildContext
) -> None:
    spec = EndpointJudge(url=server.url)
    assert spec.refuses(1.0) is None
    assert "use rollout.temperature: 1" in str(spec.refuses(0.6))
    with pytest.raises(RunError, match=r"judge far: asked for log-probs at temperature 0\.5"):
        spec.build(context).logprobs(requests(1), 0.5)
    boast = EndpointJudge(url=server.url, applies_temperature=True)
    with pytest.raises(
        ConfigError, match=r"^judges\.far\.applies_temperature: found true; http.* at temperature 1 and 2"
    ):
        boast.check(context)


@pytest.mark.parametrize("faults", [[429, 429], [500], [503, 429, 502], [0.6]], ids=str)
def test_what_may_pass_is_asked_again(faults: list[Any], server: PromptServer, context: BuildContext) -> None:
    judge = EndpointJudge(url=server.url, retries=3, timeout_s=0.3).build(context)
    expected = judge.logprobs(requests(2), 1.0)
    server.faults.extend(faults)
    assert judge.logprobs(requests(2), 1.0) == expected
    assert len(server.asked) == 1 + 2 * 2 + len(faults)


@pytest.mark.parametrize(
    ("faults", "retries", "text"),
    [
        ([401], 3, "HTTP 401 Unauthorized: .*told to answer 401"),
        ([400], 3, "HTTP 400 Bad Request"),
        ([429, 429], 1, "HTTP 429 Too Many Requests: .*, asked 2 times$"),
        ([500, 503, 500], 2, "HTTP 500 Internal Server Error: .*, asked 3 times$"),
        ([0.6, 0.6], 1, "ReadTimeout.*, asked 2 times$"),
    ],
    ids=str,
)
def test_what_does_not_pass_names_server_status_and_reason(
    faults: list[Any], retries: int, text: str, server: PromptServer, context: BuildContext
) -> None:
    judge = EndpointJudge(url=server.url, retries=retries, timeout_s=0.3).build(context)
    server.faults.extend(faults)
    with pytest.raises(RunError, match=f"^judge far: POST {server.url}/v1/completions: {text}"):
        judge.logprobs(requests(1), 1.0)
    assert not server.faults


def values(count: int | None = None, **changed: Any) -> Callable[[str, Any], Any]:
    """Answers whose log-probs are the first `count`, or some of which are `changed` (by `tN`)."""

    def change(route: str, answer: Any) -> Any:
        if route == "v1/completions":
            found = answer["choices"][0]["logprobs"]["token_logprobs"]
            for place, value in changed.items():
                found[int(place[1:])] = value
            answer["choices"][0]["logprobs"]["token_logprobs"] = found[:count]
        return answer

    return change


def echoless(route: str, answer: Any) -> Any:
    return answer if route != "v1/completions" else {"choices": [{"text": "x", "logprobs": None}]}


def misread(route: str, answer: Any) -> Any:
    return answer if route != "v1/completions" else {**answer, "usage": {"prompt_tokens": 6}}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (echoless, r"its answer holds no choices\[0\]\.logprobs\.token_logprobs"),
        (values(2), "5 tokens were sent; 5 were read, and 2 log-probs came"),
        (misread, "5 tokens were sent; 6 were read"),
        (values(t3=None), "the log-prob of token 4 of 5 is None"),
        (values(t4=float("nan")), "the log-prob of token 5 of 5 is nan"),
        (lambda route, answer: ["odd"], "its answer holds no"),
    ],
    ids=["no echo", "too few", "read otherwise", "none", "nan", "a list"],
)
def test_an_answer_that_does_not_fit_is_never_taken(
    change: Any, text: str, server: PromptServer, context: BuildContext
) -> None:
    judge = EndpointJudge(url=server.url).build(context)
    server.change = change
    with pytest.raises(RunError, match=f"^judge far: {server.url}, model teacher: {text}"):
        judge.logprobs([JudgeRequest(TokenIds([1, 2]), TokenIds([3, 4, 5]))], 1.0)


def test_a_server_that_gives_no_log_probs_is_refused_before_anything_starts(
    server: PromptServer, context: BuildContext
) -> None:
    server.change = echoless
    with pytest.raises(ConfigError, match=r"^judges\.far\.url: .*its answer holds no choices"):
        EndpointJudge(url=server.url).check(context)


def test_a_server_that_is_down_is_said_at_once(server: PromptServer, context: BuildContext) -> None:
    server.close()
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=rf"^judges\.far\.url: judge far: GET {server.url}/v1/models: .*refused"):
        EndpointJudge(url=server.url).check(context)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("model", "names", "text"),
    [
        (
            "teachr",
            ["teacher", "b"],
            "found 'teachr', which .* does not serve; did you mean 'teacher'.\nserved: teacher, b",
        ),
        (None, ["a", "b"], "which model is meant.\nserved: a, b"),
        ("a", [], "found 'a', which .* does not serve\nserved: none"),
    ],
)
def test_a_model_that_is_not_there_is_refused(
    model: str | None, names: list[str], text: str, server: PromptServer, context: BuildContext
) -> None:
    server.names = names
    with pytest.raises(ConfigError, match=rf"^judges\.far\.served_model: {text}"):
        EndpointJudge(url=server.url, served_model=model).check(context)
    server.names = ["a", "teacher"]
    EndpointJudge(url=server.url, served_model="teacher").check(context)
    assert server.asked[-1][1]["model"] == "teacher"


def test_too_little_room_is_refused(server: PromptServer, context: BuildContext) -> None:
    server.room = 100
    with pytest.raises(
        ConfigError, match=r"^judges\.far\.url: .* takes 100 tokens; .* up to 100, and it needs .* one more"
    ):
        EndpointJudge(url=server.url).check(context)
    server.room = 101
    EndpointJudge(url=server.url).check(context)


class Renumbered:
    """The student's tokenizer, two of whose ids are swapped at the server."""

    def __init__(self, tokenizer: Any, one: int, other: int) -> None:
        self.tokenizer, self.swap = tokenizer, {one: other, other: one}

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode([self.swap.get(number, number) for number in ids]))


def test_another_vocabulary_is_refused_by_what_the_server_makes_of_each_token(
    server: PromptServer, context: BuildContext, golden_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = sorted(golden_tokenizer.get_added_vocab().values())
    for at_once in (2048, 7):
        monkeypatch.setattr("ampo_plugins.judges.vocabulary.AT_ONCE", at_once)
        for one, other in ((added[0], added[1]), (70, 200)):
            server.tokenizer = Renumbered(golden_tokenizer, one, other)
            own, theirs = (golden_tokenizer.decode([number]) for number in (one, other))
            text = (
                f"has another vocabulary than the student: token {one} is {own!r} to the student; to the server it is "
            )
            with pytest.raises(ConfigError, match=rf"^judges\.far\.url: .* {re.escape(text + repr(theirs))}"):
                EndpointJudge(url=server.url).check(context)


def test_a_folder_with_the_servers_tokenizer_is_compared_whole(
    server: PromptServer, teacher: Path, context: BuildContext, golden_tokenizer: Any
) -> None:
    EndpointJudge(url=server.url, tokenizer=str(teacher)).check(context)
    assert "detokenize" not in [route for route, _ in server.asked]
    larger = replace(context, tokenizer=_with_a_token(golden_tokenizer))
    with pytest.raises(
        ConfigError, match=r"^judges\.far\.tokenizer: .* has another vocabulary .* first '<new>', which is"
    ):
        EndpointJudge(url=server.url, tokenizer=str(teacher)).check(larger)
    with pytest.raises(ConfigError, match=r"^judges\.far\.tokenizer: no tokenizer could be loaded from nowhere/there"):
        EndpointJudge(url=server.url, tokenizer="nowhere/there").check(context)


def _with_a_token(tokenizer: Any) -> Any:
    from copy import deepcopy

    larger = deepcopy(tokenizer)
    larger.add_tokens(["<new>"])
    return larger


def test_a_server_that_cannot_be_asked_how_it_reads_needs_a_tokenizer(
    server: PromptServer, context: BuildContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = server.reply
    monkeypatch.setattr(server, "reply", lambda route, body: (404, {}) if route == "detokenize" else plain(route, body))
    with pytest.raises(ConfigError, match=r"cannot be asked: .*HTTP 404.* Name a folder .* in judges\.far\.tokenizer"):
        EndpointJudge(url=server.url).check(context)


def test_the_key_goes_to_the_server_and_nowhere_else(
    server: PromptServer, context: BuildContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EndpointJudge(url=server.url, key_env="TEACHER_KEY")
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"^judges\.far\.key_env: the environment variable TEACHER_KEY is not set"):
        spec.check(context)
    monkeypatch.setenv("TEACHER_KEY", "s3cret")
    spec.check(context)
    assert set(server.keys) == {"Bearer s3cret"}
    monkeypatch.setattr(server, "reply", lambda route, body: (403, {"error": "the key s3cret may not"}))
    with pytest.raises(ConfigError, match="the key … may not") as found:
        spec.check(context)
    assert "s3cret" not in str(found.value)
    EndpointJudge(url="http://127.0.0.1:1")
    with pytest.raises(ValueError, match="should match pattern"):
        EndpointJudge(url="http://user:key@127.0.0.1")


def test_ranks_share_the_concurrency(server: PromptServer, context: BuildContext) -> None:
    for ranks, most in ((1, 4), (2, 2), (8, 1)):
        server.busiest = 0
        judge = EndpointJudge(url=server.url, concurrency=4).build(replace(context, world_size=ranks))
        server.faults.extend([0.05] * 8)
        judge.logprobs(requests(12), 1.0)
        assert server.busiest == most
