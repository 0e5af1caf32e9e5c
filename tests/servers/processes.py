"""Starts the servers of a test run and makes sure that they end with it."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Our end of the pipe closes however this process dies: then the server stops and its directory goes.
KEEPER = """
exec 3<&0
"$@" >server.log 2>&1 3<&- &
server=$!
{ cat <&3 >/dev/null; test -e ended || STOP; } &
wait "$server"
echo $? >ended
wait
cd / && rm -rf "$0"
"""
INTERRUPT = 'kill -s INT "$server"'
KILL_GROUP = '{ kill -s KILL -- "-$server" || kill -s KILL "$server"; } 2>/dev/null'

FIRST_PORT, LAST_PORT = 10_000, 32_000

# A wrapper starts the real server as its child: in a session of their own one signal reaches them all.
LEAD = (sys.executable, "-c", "import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])")


def get_directory() -> Path:
    """Return the directory of this test run's files, the same one in processes that tests start."""
    if "MASSMIGRATION_TEST_DIRECTORY" not in os.environ:
        if not is_test_run():
            return Path(tempfile.gettempdir())
        directory = tempfile.mkdtemp(prefix="massmigration-tests-")
        os.environ["MASSMIGRATION_TEST_DIRECTORY"] = directory
        atexit.register(remove_directory, directory, os.getpid())
    return Path(os.environ["MASSMIGRATION_TEST_DIRECTORY"])


def is_test_run() -> bool:
    """Return whether pytest runs in this process; mypy and makemigrations import the settings as well."""
    return "pytest" in sys.modules


def remove_directory(directory: str, pid: int) -> None:
    """Remove ``directory`` if this is the process ``pid`` that made it, and not a fork of it."""
    if os.getpid() == pid:
        shutil.rmtree(directory, ignore_errors=True)


def get_free_port() -> int:
    """Return the number of a port of this machine on which nobody listens.

    It is below those that systems give to outgoing connections (from 32768 on Linux): sessions that run side by side
    have many of them, and one could take the port before the server does.
    """
    while True:
        port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT + 1)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def is_listening(port: int) -> bool:
    """Return whether somebody accepts connections on ``port`` of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Server:
    """A server of ours that runs, or is about to."""

    name: str
    port: int
    directory: Path
    keeper: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """Return where it listens, as ``host:port``."""
        return f"127.0.0.1:{self.port}"

    def read_log(self) -> str:
        """Return all that the server wrote."""
        try:
            return (self.directory / "server.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def wait(self, is_ready: Callable[[Server], bool], *, seconds: float = 120) -> None:
        """Return when ``is_ready`` says so.

        Raises:
            RuntimeError: The server ended, or was not ready in time; the message has its log.
        """
        deadline = time.monotonic() + seconds
        while not is_ready(self):
            if (self.directory / "ended").exists():
                raise RuntimeError(f"{self.name} ended while it started: {self.read_log()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start within {seconds:.0f} seconds: {self.read_log()}")
            time.sleep(0.05)

    def stop(self, pid: int | None = None) -> None:
        """Stop the server; with ``pid`` only if this is that process, and not a fork of it."""
        if self.keeper.stdin and pid in (None, os.getpid()):
            self.keeper.stdin.close()
            self.keeper.wait(timeout=60)


def start(
    name: str, port: int, command: list[str], directory: Path, *, stop: str = INTERRUPT, **options: Any
) -> Server:
    """Start a server that ends with this process.

    Args:
        name: What error messages call it.
        port: Where it will listen.
        command: Its program and arguments.
        directory: Its current directory, which is removed with it; its output goes there, to ``server.log``.
        stop: How it is stopped, ``INTERRUPT`` or, for a wrapper with children, ``KILL_GROUP``.
        options: What else ``Popen`` takes.
    """
    if stop is KILL_GROUP:
        command = [*LEAD, *command]
    keeper = subprocess.Popen(
        ["sh", "-c", KEEPER.replace("STOP", stop), str(directory), *command],
        stdin=subprocess.PIPE,
        start_new_session=True,
        cwd=directory,
        **options,
    )
    server = Server(name, port, directory, keeper)
    atexit.register(server.stop, os.getpid())
    return server
