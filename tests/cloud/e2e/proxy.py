"""Stands between the queue and the site: delivers what the queue sends twice, later, or for a while not at all."""

from __future__ import annotations

import http.client
import random
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tests.servers import cloudtasks

UNAVAILABLE = 503


class Delivery(NamedTuple):
    """A request that the site was sent.

    Attributes:
        task: Name of the task.
        copy: 0 and 1 for the two that came at once, 2 for the one that came later.
        began_at: When it was sent, by ``time.monotonic()``.
        status: Of the answer; 502 if the site was not there.
        body: What it asked for.
    """

    task: str
    copy: int
    began_at: float
    status: int
    body: bytes


class Proxy(ThreadingHTTPServer):
    """Listens where the queue delivers to.

    Args:
        port: Of the site.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", cloudtasks.get_target_port()), _Handler)
        self.deliveries: list[Delivery] = []
        self.refuse: Callable[[str], int | None] = lambda task: None
        """Returns the status to answer to a task without asking the site; None to ask."""
        self.refused: list[str] = []
        self.delays: random.Random | None = None
        """If it is set, each task is delivered three times: twice at once, and once more some time later."""
        self._port = port
        self._in_hand: list[str] = []
        self._late: list[threading.Thread] = []

    def deliver(self, task: str, path: str, headers: dict[str, str], body: bytes) -> int:
        """Send a task to the site and return the status for the queue, that of the first copy."""
        self._in_hand.append(task)
        try:
            return self._deliver(task, path, headers, body)
        finally:
            self._in_hand.remove(task)

    def _deliver(self, task: str, path: str, headers: dict[str, str], body: bytes) -> int:
        status = self.refuse(task)
        if status is not None:
            self.refused.append(task)
            return status
        arguments = task, path, headers, body
        if self.delays is None:
            return self._send(0, 0, *arguments)
        at_once = threading.Thread(target=self._send, args=(1, self.delays.choice([0, 0.05]), *arguments))
        late = threading.Thread(target=self._send, args=(2, self.delays.uniform(0.2, 2), *arguments))
        at_once.start()
        late.start()
        self._late.append(late)  # only now: a thread that has not begun cannot be waited for
        status = self._send(0, 0, *arguments)
        at_once.join()
        return status

    def finish(self) -> None:
        """Refuse what comes from now on, and return when nothing is on its way any more."""
        self.refuse = lambda task: UNAVAILABLE
        while self._in_hand:
            time.sleep(0.02)
        while self._late:
            self._late.pop().join()

    def _send(self, copy: int, delay: float, task: str, path: str, headers: dict[str, str], body: bytes) -> int:
        time.sleep(delay)
        began_at = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=180)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):  # killed, or not there
            status = 502
        finally:
            connection.close()
        self.deliveries.append(Delivery(task, copy, began_at, status, body))
        return status


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        left_out = ("host", "connection", "content-length", "accept-encoding")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
        self.send_response(self.server.deliver(self.headers["X-AppEngine-TaskName"], self.path, headers, body))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def stand_between(port: int) -> Iterator[Proxy]:
    """Have the queue deliver to a proxy in front of the site on ``port``."""
    with Proxy(port) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.finish()
            proxy.shutdown()
            thread.join()


class _Tunnel(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        host, _, port = self.server.target.rpartition(":")
        with socket.create_connection((host, int(port))) as onward:
            back = threading.Thread(target=_pump, args=(onward, self.request))
            back.start()
            _pump(self.request, onward)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # one of them hung up
        pass


@contextmanager
def forward(port: int, target: str) -> Iterator[None]:
    """Pass on what comes to a port of this machine, as long as the context lasts.

    Args:
        port: Where to listen.
        target: Where to pass it on to, ``host:port``.
    """
    with socketserver.ThreadingTCPServer(("127.0.0.1", port), _Tunnel) as server:
        server.daemon_threads = True
        server.target = target
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
