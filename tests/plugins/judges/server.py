"""A real HTTP server on this machine that answers as vLLM does, with the true log-probs of a model."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch


class PromptServer:
    """Serves the model in `folder`. `asked` holds (route, body) in order, `keys` the Authorization of each.

    `faults` are taken by requests of completions one after the other: a status, or a number of seconds to be slow.
    `change` may alter an answer; `warms` lets a request's temperature count.
    """

    def __init__(self, folder: Path, *, warms: bool = False, room: int = 512) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.asked: list[tuple[str, Any]] = []
        self.keys: list[str | None] = []
        self.faults: deque[int | float] = deque()
        self.change: Any = lambda route, answer: answer
        self.names, self.room, self.warms = ["teacher"], room, warms
        self.busy = self.busiest = 0
        self.lock = threading.Lock()
        serving = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: Any) -> None:
                serving.keys.append(self.headers.get("Authorization"))
                status, content = serving.answer(self.path.strip("/"), body)
                data = json.dumps(content).encode()
                self.send_response(status)
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
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def answer(self, route: str, body: Any) -> tuple[int, Any]:
        with self.lock:
            self.asked.append((route, body))
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
            fault = self.faults.popleft() if self.faults and route == "v1/completions" else None
        try:
            if isinstance(fault, float):
                time.sleep(fault)
            elif fault is not None:
                return fault, {"error": {"message": f"told to answer {fault}"}}
            status, found = self.reply(route, body)
            return status, self.change(route, found)
        finally:
            with self.lock:
                self.busy -= 1

    def reply(self, route: str, body: Any) -> tuple[int, Any]:
        if route == "v1/models":
            return 200, {"data": [{"id": name, "max_model_len": self.room} for name in self.names]}
        if route == "detokenize":
            return 200, {"prompt": self.tokenizer.decode(body["tokens"])}
        if route != "v1/completions":
            return 404, {"error": "no such route"}
        ids = body["prompt"]
        if len(ids) >= self.room:
            return 400, {"error": {"message": f"at most {self.room} tokens"}}
        values = [None, *self.log_probs(ids, body["temperature"] if self.warms else 1.0), -0.5]
        choice = {"index": 0, "text": "", "logprobs": {"token_logprobs": values}, "finish_reason": "length"}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": len(ids), "completion_tokens": 1}}

    def log_probs(self, ids: list[int], temperature: float) -> list[float]:
        with self.lock, torch.no_grad():
            logits = self.model(torch.tensor([ids])).logits[0, :-1] / temperature
        return logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
