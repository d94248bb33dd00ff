"""A server behind its HTTP routes."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2
from ampo_registry import RunError

BACKOFF_S = 0.5
FAILURES = (httpx2.HTTPError, httpx2.InvalidURL)
# Straight to the server, whatever proxy the environment names; a connection for each request, for a kept one may be
# closed just as a request goes out that may not be sent twice.
_CLIENT = httpx2.Client(
    trust_env=False,
    verify=ssl.create_default_context(),
    follow_redirects=True,
    limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
)


class RouteMissing(RunError):
    """The server does not know the route."""


@dataclass(frozen=True, slots=True)
class HttpServer:
    """The server at `url`; an answer may take `timeout_s`, and a failed one is asked for `retries` times more.

    Errors begin with `asked_by`. `key` is sent as a bearer token and shown nowhere.
    """

    url: str
    timeout_s: float
    retries: int = 0
    asked_by: str = "rollout vllm_server"
    key: str = field(default="", repr=False)

    def get(self, route: str) -> Any:
        """The JSON that GET gives; RunError if there is none."""
        return self._answer("GET", route, None, self.retries)

    def post(self, route: str, body: Any = None, *, retry: bool = False) -> Any:
        """The JSON that POST gives, None if empty. Only a request that changes nothing may be asked for again.

        Raises RunError that names the server, RouteMissing if it answers 404.
        """
        return self._answer("POST", route, {} if body is None else body, self.retries if retry else 0)

    def wait_until_up(self, seconds: float) -> None:
        """Return once the server is healthy; RunError after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._ask("GET", "health", None, min(self.timeout_s, 5.0))
                return
            except FAILURES as error:
                if time.monotonic() >= deadline:
                    raise RunError(
                        f"{self.asked_by}: {self.url} is not up after {seconds:g} s: {self._reason(error)}"
                    ) from error
            time.sleep(BACKOFF_S)

    def _answer(self, method: str, route: str, body: Any, retries: int) -> Any:
        for attempt in range(retries + 1):
            try:
                answer = self._ask(method, route, body, self.timeout_s)
                return answer.json() if answer.content else None
            except (*FAILURES, ValueError) as error:
                found, status = error, error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else 500
                # 4xx: the request is wrong, and will be wrong again
                if (status < 500 and status != 429) or attempt == retries:
                    break
                time.sleep(BACKOFF_S * 2**attempt)
        tries = "" if attempt == 0 else f", asked {attempt + 1} times"
        text = f"{self.asked_by}: {method} {self._address(route)}: {self._reason(found)}{tries}"
        raise RouteMissing(text) if status == 404 else RunError(text)

    def _ask(self, method: str, route: str, body: Any, timeout: float) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        answer = _CLIENT.request(method, self._address(route), json=body, timeout=timeout, headers=headers)
        return answer.raise_for_status()

    def _address(self, route: str) -> str:
        return f"{self.url.rstrip('/')}/{route}"

    def _reason(self, error: Exception) -> str:
        text = _reason(error)
        return text.replace(self.key, "…") if self.key else text


def _reason(error: Exception) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        answer = error.response
        said = answer.text.strip()
        return f"HTTP {answer.status_code} {answer.reason_phrase}" + (f": {said[:500]}" if said else "")
    return str(error) if isinstance(error, httpx2.ConnectError) else f"{type(error).__name__}: {error}"
