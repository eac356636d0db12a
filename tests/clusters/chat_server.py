"""A real HTTP server that speaks the chat-completions protocol and misbehaves on a script."""

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Say:
    """A complete response with this content."""

    content: str | None
    finish: str = "stop"
    usage: bool = True
    refusal: str | None = None

    @property
    def body(self) -> bytes:
        message = {"role": "assistant", "content": self.content, "refusal": self.refusal}
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        choice = {"index": 0, "finish_reason": self.finish, "message": message}
        response = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "fake-1",
            "choices": [choice],
        }
        return json.dumps(response | ({"usage": usage} if self.usage else {})).encode()


@dataclass
class Fail:
    """Anything but an answer: kind is status, drop, cut, garbage, html, empty or slow."""

    kind: str
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "the server is busy"
    code: str | None = None


class ChatServer(ThreadingHTTPServer):
    """`script` gets the body of every request and returns what to do. Requests are kept."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Callable[[dict[str, Any]], Say | Fail], slow: float = 2.0):
        self.script = script
        self.slow = slow
        self.requests: list[dict[str, Any]] = []
        self.served = 0
        self.most_at_once = 0
        self._at_once = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> "ChatServer":
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Clients that gave up waiting are no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ChatServer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        with server.lock:
            server.requests.append(
                {"path": self.path, "authorization": self.headers.get("authorization"), **request}
            )
            server._at_once += 1
            server.most_at_once = max(server.most_at_once, server._at_once)
            act = server.script(request)
            server.served += isinstance(act, Say)
        time.sleep(0.002)  # time for another request to come in beside this one
        with server.lock:  # before the answer: a client that has it may ask again at once
            server._at_once -= 1
        self._do(act)

    def _do(self, act: Say | Fail) -> None:
        if isinstance(act, Say):
            return self._send(act.body)
        response = Say('{"clusters": []}').body
        if act.kind == "status":
            error = {"error": {"message": act.message, "type": "x", "code": act.code}}
            return self._send(json.dumps(error).encode(), act.status, act.headers)
        if act.kind == "drop":
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        if act.kind == "cut":
            self.close_connection = True
            return self._send(response[: len(response) // 2], length=len(response))
        if act.kind == "slow":
            time.sleep(self.server.slow)
            return self._send(response)
        bodies = {
            "garbage": b'{"choices": [',
            "html": b"<html>proxy</html>",
            "empty": b'{"error": {"message": "overloaded"}}',
        }
        return self._send(
            bodies[act.kind],
            headers={"content-type": "text/html" if act.kind == "html" else "application/json"},
        )

    def _send(
        self,
        body: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in ({"content-type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("content-length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def answer(*clusters: str) -> str:
    """answer("cat dog", "car") is the JSON that puts cat and dog together."""
    listed = [{"name": f"group of {tags.split()[0]}", "tags": tags.split()} for tags in clusters]
    return json.dumps({"clusters": listed})
