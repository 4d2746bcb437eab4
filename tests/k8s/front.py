"""A server before the API server, which answers some requests itself that it is too busy."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import urllib3

from tests.k8s.plane import Plane, kubeconfig

PASSED = ("Accept", "Authorization", "Content-Type")


@dataclass(frozen=True)
class Asked:
    """``at``: seconds by the monotonic clock; ``what``: method and path, and whether it is a watch."""

    at: float
    what: str
    refused: bool


class Front:
    """``refuses``: given what is asked, whether the answer is 429, with ``pause`` as its Retry-After."""

    def __init__(self, plane: Plane, refuses: Callable[[str], bool], pause: str = "1") -> None:
        self.asked: list[Asked] = []
        self._refuses, self._pause = refuses, pause
        self._host = plane.api.configuration.host
        self._pool = urllib3.PoolManager(ca_certs=plane.api.configuration.ssl_ca_cert)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Front":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, path: Path, token: str, namespace: str) -> Path:
        path.write_text(kubeconfig({"server": self.url}, token, namespace))
        return path

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        front = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                with suppress(OSError):  # whoever asked has hung up
                    front._answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

            def log_message(self, *words: object) -> None:
                pass

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        what = " ".join(["watch" if "watch=true" in query else request.command, path])
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        refused = self._refuses(what)
        self.asked.append(Asked(time.monotonic(), what, refused))
        if refused:
            request.send_response(429)
            request.send_header("Retry-After", self._pause)
            request.end_headers()
            request.wfile.write(json.dumps({"message": "too many requests"}).encode())
            return
        headers = {key: request.headers[key] for key in PASSED if key in request.headers}
        with closing(
            self._pool.request(
                request.command, self._host + request.path, body=body, headers=headers, preload_content=False
            )
        ) as found:
            request.send_response(found.status)
            request.end_headers()
            for part in found.stream(amt=None, decode_content=False):
                request.wfile.write(part)
