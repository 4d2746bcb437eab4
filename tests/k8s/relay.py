"""A TCP port before another one, whose connections break off and which may be away for a while."""

import socket
import threading
from contextlib import suppress
from socket import SHUT_RDWR
from socket import socket as Socket


class Relay:
    """``url``: of what answers HTTP at ``port`` of this machine, through here."""

    def __init__(self, port: int) -> None:
        self._port, self._away, self._open = port, threading.Event(), set[Socket]()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *error: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Every connection breaks off; the next one is let through."""
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(SHUT_RDWR)

    def away(self, seconds: float) -> None:
        """For so long nothing is let through."""
        self._away.set()
        self.cut()
        threading.Event().wait(seconds)
        self._away.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: Socket) -> None:
        with client, suppress(OSError):
            if self._away.is_set():
                return
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                self._open |= {client, server}
                back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                back.start()
                self._pump(client, server)
                back.join()
                self._open -= {client, server}

    @staticmethod
    def _pump(source: Socket, sink: Socket) -> None:
        """Until one of both ends, which ends the other."""
        with suppress(OSError):
            while part := source.recv(1 << 16):
                sink.sendall(part)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(SHUT_RDWR)
