"""What a container has written, line by line, and the HTTPS server at which the API server asks a kubelet for it."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR, socket
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit


class Log:
    def __init__(self) -> None:
        self._lines: list[tuple[int, bytes]] = []
        self._ended = False
        self._changed = threading.Condition()

    def drain(self, output: BinaryIO) -> None:
        """Take in a container's output until it ends."""
        for line in output:
            with self._changed:
                self._lines.append((time.time_ns(), line))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def read(
        self, follow: bool = False, since: float = 0, tail: int | None = None, timestamps: bool = False
    ) -> Iterator[bytes]:
        """As the kubelet does: the last ``tail`` lines of all, and of these what was written since, in Unix seconds."""
        at = 0 if tail is None else max(0, len(self._lines) - tail)
        while True:
            with self._changed:
                while follow and not self._ended and at == len(self._lines):
                    self._changed.wait()
                if at == len(self._lines):
                    return
                nanoseconds, line = self._lines[at]
            at += 1
            if nanoseconds >= since * 1e9:
                yield (_stamp(nanoseconds) + b" " if timestamps else b"") + line


def _stamp(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z".encode()


class Refusal(Exception):
    """HTTP status and words."""


class LogServer(ThreadingHTTPServer):
    """``GET /containerLogs/{namespace}/{pod}/{container}``, as PodLogOptions say; ``find`` knows the logs."""

    daemon_threads = True

    def __init__(self, port: int, certificates: Path, find: Callable[[str, str, str], Log]) -> None:
        self.find = find
        self._open: set[socket] = set()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificates / "apiserver.crt", certificates / "apiserver.key")
        super().__init__(("127.0.0.1", port), _Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def finish_request(self, request: socket, address: tuple[str, int]) -> None:  # type: ignore[override]
        """In a thread of its own, and so is the handshake."""
        with suppress(OSError), self._tls.wrap_socket(request, server_side=True) as connection:
            self._open.add(connection)
            try:
                super().finish_request(connection, address)
            finally:
                self._open.discard(connection)

    def cut(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                socket.shutdown(connection, SHUT_RDWR)  # not SSLSocket's: that takes the TLS from its writer

    def close(self) -> None:
        self.shutdown()
        self.cut()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LogServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        try:
            first, *names = unquote(url.path).strip("/").split("/")
            if first != "containerLogs" or len(names) != 3:
                raise Refusal(404, f"{url.path}: not /containerLogs/{{namespace}}/{{pod}}/{{container}}")
            lines = self.server.find(*names).read(
                follow=query.get("follow") == "true",
                since=_since(query),
                tail=int(query["tailLines"]) if "tailLines" in query else None,
                timestamps=query.get("timestamps") == "true",
            )
        except Refusal as refusal:
            status, words = refusal.args
            self._begin(status)
            self._send(words.encode())
        else:
            self._relay(lines)
        self.wfile.write(b"0\r\n\r\n")

    def _relay(self, lines: Iterator[bytes]) -> None:
        """The answer begins with its first line: a silent container keeps its reader waiting, as the kubelet does."""
        begun = False
        for line in lines:
            if not begun:
                self._begin(200)
            begun = True
            self._send(line)
        if not begun:
            self._begin(200)

    def _begin(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""


def _since(query: dict[str, str]) -> float:
    if "sinceTime" in query:
        return datetime.fromisoformat(query["sinceTime"]).timestamp()
    return time.time() - int(query["sinceSeconds"]) if "sinceSeconds" in query else 0
