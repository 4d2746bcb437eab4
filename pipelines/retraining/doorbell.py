"""MLflow's webhooks, signed, as a bell: somebody changed the registry, so look now and not in an hour."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipelines.errors import Misuse, first_line
from pipelines.retraining import signed

SECRET = "HOLDFAST_MLFLOW_WEBHOOK_SECRET"
"""The environment variable with the secret that the webhook was made with in MLflow."""
LARGEST = 1 << 20


def check(listen: str | None) -> tuple[str, int] | None:
    """``host:port``.  Errors: ``Misuse`` for another form, and without a secret: anybody could ring."""
    if listen is None:
        return None
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise Misuse(f"listen={listen} is no place to listen at: give host:port, such as 127.0.0.1:8099")
    if not os.environ.get(SECRET):
        raise Misuse(f"listen={listen} needs the webhook's secret in {SECRET}: without it anybody could ring")
    return host, int(port)


@contextmanager
def listening(where: tuple[str, int] | None, name: str, rung: threading.Event) -> Iterator[int | None]:
    """Sets ``rung`` at each believed webhook about the registered model ``name``; the port that is listened at."""
    if where is None:
        yield None
        return
    try:
        server = ThreadingHTTPServer(where, _handler(os.environ[SECRET], name, rung))
    except OSError as error:
        raise Misuse(
            f"listen={where[0]}:{where[1]} cannot be listened at ({first_line(error)}); give another port"
        ) from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def _handler(secret: str, name: str, rung: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            body = self.rfile.read(min(int(length), LARGEST) if length.isdecimal() else 0)
            mark = (self.headers.get(f"X-MLflow-{each}", "") for each in ("Delivery-Id", "Timestamp", "Signature"))
            ident, timestamp, signature = mark
            if why := signed.wrong(secret, ident, timestamp, body, signature, time.time()):
                self._answer(401, why)
                return
            if about(body) == name:
                rung.set()
            self._answer(200, "heard")

        def _answer(self, code: int, text: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def about(body: bytes) -> str | None:
    """The registered model that a webhook speaks of."""
    try:
        return str(json.loads(body)["data"]["name"])
    except (ValueError, KeyError, TypeError):
        return None
