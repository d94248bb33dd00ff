"""A model behind a server, asked for the log-probs of given tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ampo_registry import JudgeRequest, LogProbs, RunError

from ampo_plugins.server import HttpServer


class ServedModel:
    """`model` at `server`, which takes sequences of `room` tokens (None: not known), `at_once` requests at a time.

    `warms`: it applies a request's temperature to the prompt.
    """

    def __init__(self, server: HttpServer, model: str, room: int | None, at_once: int, *, warms: bool) -> None:
        self.room = room
        self._server, self._model, self._warms = server, model, warms
        self._threads = ThreadPoolExecutor(max_workers=at_once)

    def logprobs(self, requests: Sequence[JudgeRequest], temperature: float) -> list[LogProbs]:
        """For each request the log-prob of each of its tokens, in nats. Raises RunError that names the server."""
        if temperature != 1.0 and not self._warms:
            raise RunError(
                f"{self._server.asked_by}: asked for log-probs at temperature {temperature:g}; {self._server.url} "
                "gives them at 1"
            )

        def one(request: JudgeRequest) -> LogProbs:
            ids = [*request.prompt_token_ids, *request.token_ids]
            return LogProbs(self.logprobs_of(ids, len(request.prompt_token_ids), temperature))

        return list(self._threads.map(one, requests))

    def logprobs_of(self, ids: Sequence[int], start: int, temperature: float) -> list[float]:
        """The log-probs of `ids` from `start` (at least 1) on, each given the ones before it."""
        body = {
            "model": self._model,
            "prompt": list(ids),
            "max_tokens": 1,
            "echo": True,
            "logprobs": 1,
            "temperature": temperature,
            "top_p": 1.0,
        }
        answer = self._server.post("v1/completions", body, retry=True)
        try:
            [choice] = answer["choices"]
            values: list[Any] = choice["logprobs"]["token_logprobs"]
            read: Any = (answer.get("usage") or {}).get("prompt_tokens", len(ids))
        except (TypeError, KeyError, ValueError) as error:
            raise self._odd("its answer holds no choices[0].logprobs.token_logprobs") from error
        if len(values) not in (len(ids), len(ids) + 1) or read != len(ids):
            raise self._odd(
                f"{len(ids)} tokens were sent; {read} were read, and {len(values)} log-probs came (echo gives the "
                "prompt's, too)"
            )
        found = values[start : len(ids)]
        for i, value in enumerate(found):
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise self._odd(f"the log-prob of token {start + i + 1} of {len(ids)} is {value!r}")
        return [float(value) for value in found]

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text that `ids` are to the server, special tokens included."""
        body = {"model": self._model, "tokens": list(ids), "skip_special_tokens": False}
        answer = self._server.post("detokenize", body, retry=True)
        # vLLM's name, and SGLang's
        found = (answer.get("prompt", answer.get("text"))) if isinstance(answer, dict) else None
        if not isinstance(found, str):
            raise self._odd("its /detokenize gave no text")
        return found

    def close(self) -> None:
        """The server goes on."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _odd(self, text: str) -> RunError:
        return RunError(f"{self._server.asked_by}: {self._server.url}, model {self._model}: {text}")
