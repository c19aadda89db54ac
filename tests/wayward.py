"""A small HTTP server on loopback that answers by a script: errors, silence, half an answer."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class WaywardServer:
    """What was asked, and where to ask; the last answer of the script is given for ever."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []


@contextmanager
def wayward_server(*script: Answer) -> Generator[WaywardServer]:
    """Run a server whose n-th request, of any kind, gets the n-th answer."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            served.requests.append((self.command, self.path))
            served.headers.append(dict(self.headers))
            script[min(len(served.requests), len(script)) - 1](self, body)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Keep the terminal quiet."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    listener.block_on_close = False
    served = WaywardServer(f"http://127.0.0.1:{listener.server_port}/dicom-web")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def whole(body: bytes, kind: str = "application/dicom+json", **headers: str) -> Answer:
    """Answer 200 with a body."""
    return status(200, body, **{"Content-Type": kind, **headers})


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer a status; underscores in names of headers become hyphens."""

    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def cut(body: bytes, at: int, kind: str) -> Answer:
    """Promise a body and hang up after its first bytes."""

    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:at])
        handler.close_connection = True

    return answer


def silence(seconds: float) -> Answer:
    """Take the request, say nothing for a while, and hang up."""

    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return answer


def forwarded(root: str, lose_answer: bool = False) -> Answer:
    """Hand the request on to another server; its answer may get lost on the way back."""

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        kept = {
            name: handler.headers[name]
            for name in ("Accept", "Authorization", "Content-Type")
            if name in handler.headers
        }
        got = requests.request(
            handler.command, root + handler.path, data=body or None, headers=kept, timeout=30
        )
        if lose_answer:
            handler.close_connection = True
            return
        status(got.status_code, got.content, Content_Type=got.headers["Content-Type"])(
            handler, body
        )

    return answer
