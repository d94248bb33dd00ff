"""A stand-in for the routes of `vllm serve`: it records what it is asked, and answers as the real one does.

`update_weights` returns only when as many tensors have been broadcast as the call names: in one NCCL call with the
sender, as real workers are.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from urllib.parse import parse_qsl, urlsplit


class FakeServer:
    """`asked` lists (route, query, body) in order; `broken` maps a route to the status codes of its next answers."""

    def __init__(self, model="models/start", workers=1, weight_version="default"):
        self.asked, self.broken, self.received = [], {}, {}
        self.model, self.workers, self.weight_version = model, workers, weight_version
        self.tensors = Queue()
        self.lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer({})

            def do_POST(self):
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body):
                parts = urlsplit(self.path)
                status, content = fake.answer(parts.path.lstrip("/"), dict(parse_qsl(parts.query)), body)
                data = json.dumps(content).encode() if content is not None else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def routes(self):
        return [route for route, _, _ in self.asked]

    def answer(self, route, query, body):
        with self.lock:
            self.asked.append((route, query, body))
            codes = self.broken.get(route)
            if codes:
                return codes.pop(0), {"error": "told to fail"}
        return self.reply(route, body)

    def reply(self, route, body):
        if route == "v1/models":
            return 200, {"data": [{"id": "served", "root": self.model, "max_model_len": 64}]}
        if route == "v1/completions":
            return 200, {"choices": [self.completion(body)]}
        if route == "get_world_size":
            return 200, {"world_size": self.workers}
        if route == "weight_info":
            return 200, {"weight_version": self.weight_version}
        if route == "update_weights":
            info = body["update_info"]
            for name, dtype, shape in zip(info["names"], info["dtype_names"], info["shapes"], strict=True):
                tensor = self.tensors.get(timeout=20)
                assert (str(tensor.dtype), list(tensor.shape)) == (f"torch.{dtype}", shape)
                self.received[name] = tensor.clone()
        return 200, None

    def completion(self, body):
        """`max_tokens` tokens that depend on the seed alone, or fewer that end with the stop token."""
        ids = [(body["seed"] + i) % 7 + 3 for i in range(body["max_tokens"])]
        stops = [at for at, token in enumerate(ids) if token in body["stop_token_ids"]]
        ids = ids[: stops[0] + 1] if stops else ids
        return {
            "token_ids": ids,
            "logprobs": {"token_logprobs": [-0.5] * len(ids)},
            "finish_reason": "stop" if stops else "length",
        }
