"""A way to a MySQL server that fails on order: at the n-th command it cuts, falls silent, keeps the answer or gives an error."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Final, Literal

# before: the server never hears the command. after: it does it, and the answer is lost. silent: as these, but nobody hangs up.
Fault = Literal["cut before", "cut after", "silent before", "silent after"] | int
STATES: Final = {1040: "08004", 1053: "08S01", 1205: "HY000", 1213: "40001", 1290: "HY000", 1792: "25006", 1836: "HY000"}


class FailingProxy:
    """Counts commands over all connections; `fault` happens once, at command number ``at``. An int is a MySQL error."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.n_commands = 0
        self.at: int | None = None
        self.fault: Fault = "cut before"
        self.happened_on = ""
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, fault: Fault, at: int) -> None:
        """Count from 0 again; the fault happens at command ``at`` (1 is the first)."""
        with self._lock:
            self.n_commands, self.at, self.fault, self.happened_on = 0, at, fault, ""

    def disarm(self) -> None:
        with self._lock:
            self.n_commands, self.at = 0, None

    def close(self) -> None:
        for each in [self._listener, *self._sockets]:
            _hang_up(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._server)
                except OSError:
                    _hang_up(client)
                    continue
                self._sockets += [client, server]
                silenced = threading.Event()
                threading.Thread(target=self._answers, args=(server, client, silenced), daemon=True).start()
                threading.Thread(target=self._commands, args=(client, server, silenced), daemon=True).start()

    def _answers(self, server: socket.socket, client: socket.socket, silenced: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while received := server.recv(65_536):
                if not silenced.is_set():
                    client.sendall(received)
        if not silenced.is_set():
            _hang_up(client)

    def _commands(self, client: socket.socket, server: socket.socket, silenced: threading.Event) -> None:
        with contextlib.suppress(OSError):
            for packet in _packets(client):
                fault = self._fault_of(packet)
                if isinstance(fault, int):
                    client.sendall(_error(fault))
                    continue
                if fault is not None:
                    silenced.set()
                if fault in {None, "cut after", "silent after"}:
                    server.sendall(packet)
                if fault == "cut after":
                    server.settimeout(10)
                    self._wait_for_answer(server)
                if fault is not None:
                    if fault.startswith("cut"):
                        _hang_up(client)
                        _hang_up(server)
                    return
        if not silenced.is_set():
            _hang_up(server)

    @staticmethod
    def _wait_for_answer(server: socket.socket) -> None:
        """The other thread may read it first; either way the server has done the command when something came."""
        with contextlib.suppress(OSError):
            server.settimeout(0.3)
            server.recv(1)

    def _fault_of(self, packet: bytes) -> Fault | None:
        if packet[3] != 0:  # the handshake's packets are numbered on
            return None
        with self._lock:
            self.n_commands += 1
            if self.n_commands != self.at:
                return None
            self.at = None
            self.happened_on = packet[5:].split(b" ", 1)[0][:20].decode("ascii", "replace") or "ping"
            return self.fault


def _packets(client: socket.socket) -> Iterator[bytes]:
    """Whole packets: three bytes of length, one of number, and what they hold."""
    held = b""
    while received := client.recv(65_536):
        held += received
        while len(held) >= 4 and len(held) >= (size := 4 + int.from_bytes(held[:3], "little")):
            yield held[:size]
            held = held[size:]


def _error(code: int) -> bytes:
    said = b"\xff" + code.to_bytes(2, "little") + b"#" + STATES[code].encode() + b"canary-hunter2 said the server"
    return len(said).to_bytes(3, "little") + b"\x01" + said


def _hang_up(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
