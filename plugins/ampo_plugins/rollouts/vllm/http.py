"""A vLLM server behind its HTTP routes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from ampo_registry import RunError

# straight to the server, whatever proxy the environment names
_OPENER = build_opener(ProxyHandler({}))
BACKOFF_S = 0.5


class RouteMissing(RunError):
    """The server does not know the route."""


@dataclass(frozen=True, slots=True)
class VllmServer:
    """The server at `url`; an answer may take `timeout_s`, and a failed one is asked for `retries` times more."""

    url: str
    timeout_s: float
    retries: int = 0

    def get(self, route: str) -> Any:
        """The JSON that GET gives; RunError if there is none."""
        return self._answer(Request(self._address(route)), self.retries)

    def post(self, route: str, body: Any = None, *, query: dict[str, str] | None = None, retry: bool = False) -> Any:
        """The JSON that POST gives, None if empty. Only a request that changes nothing may be asked for again.

        Raises RunError that names the server, RouteMissing if it answers 404.
        """
        data = json.dumps({} if body is None else body).encode("utf-8")
        address = self._address(route) + (f"?{urlencode(query)}" if query else "")
        request = Request(address, data=data, headers={"Content-Type": "application/json"}, method="POST")
        return self._answer(request, self.retries if retry else 0)

    def wait_until_up(self, seconds: float) -> None:
        """Return once the server is healthy; RunError after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._read(Request(self._address("health")), min(self.timeout_s, 5.0))
                return
            except (OSError, HTTPException) as error:
                if time.monotonic() >= deadline:
                    raise RunError(
                        f"rollout vllm_server: {self.url} is not up after {seconds:g} s: {_reason(error)}"
                    ) from error
            time.sleep(BACKOFF_S)

    def _address(self, route: str) -> str:
        return f"{self.url.rstrip('/')}/{route}"

    def _answer(self, request: Request, retries: int) -> Any:
        for attempt in range(retries + 1):
            try:
                content = self._read(request, self.timeout_s)
                return json.loads(content) if content else None
            except (OSError, HTTPException, ValueError) as error:
                found = error
                # 4xx: the request is wrong, and will be wrong again
                wrong = isinstance(error, HTTPError) and error.code < 500 and error.code != 429
                if wrong or attempt == retries:
                    break
                time.sleep(BACKOFF_S * 2**attempt)
        kind = RouteMissing if isinstance(found, HTTPError) and found.code == 404 else RunError
        tries = "" if attempt == 0 else f", asked {attempt + 1} times"
        raise kind(f"rollout vllm_server: {request.method or 'GET'} {request.full_url}: {_reason(found)}{tries}")

    def _read(self, request: Request, timeout: float) -> bytes:
        with _OPENER.open(request, timeout=timeout) as answer:
            content: bytes = answer.read()
        return content


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        said = error.read().decode("utf-8", errors="replace").strip()
        return f"HTTP {error.code} {error.reason}" + (f": {said[:500]}" if said else "")
    if isinstance(error, URLError):
        return str(error.reason)
    return f"{type(error).__name__}: {error}"
