"""A real HTTP server on this machine that speaks the chat completions protocol, and misbehaves as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer:
    """`asked` holds all bodies, `headers` all headers, `keys` those of Authorization.

    `faults` are taken by requests one after the other.
    A fault is (status, headers, body), or a number of seconds to be slow. `busiest` is the largest number of requests
    that were answered at once.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.faults: deque[tuple[int, dict[str, str], str] | float] = deque()
        self.refuse_after: int | None = None
        self.reasoning: str | None = None
        self.finish: str = "stop"
        self.pause, self.busy, self.busiest = 0.0, 0, 0
        self.lock = threading.Lock()
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                chat.headers.append(dict(self.headers))
                status, headers, text = chat.serve(self.path, self.headers.get("Authorization"), body)
                data = text.encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments: object) -> None:
                pass  # a client that ran out of time has closed the connection

        self.http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def serve(self, path: str, key: str | None, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        with self.lock:
            self.asked.append(body)
            self.keys.append(key)
            self.paths.append(path)
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
            fault = self.faults.popleft() if self.faults else None
            if self.refuse_after is not None and len(self.asked) > self.refuse_after:
                fault = 403, {}, json.dumps({"error": {"message": f"no more for {key}", "type": "quota"}})
        try:
            if isinstance(fault, tuple):
                return fault
            time.sleep(self.pause if fault is None else fault)
            return 200, {}, json.dumps(self.completion(body))
        finally:
            with self.lock:
                self.busy -= 1

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        """An answer that depends on question and seed alone."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": f"{body['messages'][-1]['content']} {body.get('seed')}",
        }
        if self.reasoning is not None:
            message["reasoning_content"] = self.reasoning
        choice = {"index": 0, "finish_reason": self.finish, "message": message}
        usage = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [choice],
            "usage": usage,
        }

    def finished(self) -> Counter[tuple[str, int]]:
        """How often each (question, seed) was asked for."""
        return Counter((body["messages"][-1]["content"], body["seed"]) for body in self.asked)
