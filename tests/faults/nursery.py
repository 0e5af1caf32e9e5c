"""Forks processes that are going to be killed: each is a real one, and costs milliseconds instead of seconds.

``python -m tests.faults.nursery`` sets Django up once and opens no connection. For each line on its standard input it
forks a child, which does one of the ``JOBS`` on connections of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 300.0


class Child:
    """One process of the nursery's."""

    def __init__(self, nursery: Nursery, pid: int, log: Path, met: Path) -> None:
        self._nursery = nursery
        self._log = log
        self._met = met
        self._code: int | None = None
        self.pid = pid

    def poll(self) -> int | None:
        """Return the exit code, negative for the signal that killed it; None while it lives."""
        if self._code is None:
            self._code = self._nursery.ask(do="poll", pid=self.pid)
        return self._code

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end and return its exit code."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"process {self.pid} did not end within {seconds:g} seconds: {self.tell()}")
            time.sleep(0.005)
        return code

    def kill(self) -> None:
        """Kill it now, if it is alive: until its exit code is asked for, its number is nobody else's."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)

    def tell(self) -> str:
        """Return what it said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def met(self) -> str:
        """The name of the step in which it killed itself, or an empty string."""
        return self._met.read_text() if self._met.exists() else ""


class Nursery:
    """Starts children.

    Args:
        directory: For what they say.
        environment: Of the children; names their settings and databases.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            text=True,
            start_new_session=True,
        )

    def start(
        self,
        job: str,
        *arguments: Any,
        step: str = "",
        at: int = 0,
        settings: Mapping[str, Any] | None = None,
        statements: Mapping[str, list[str]] | None = None,
        databases: Mapping[str, Mapping[str, Any]] | None = None,
        file_limit: int | None = None,
        read_only: tuple[int, int] | None = None,
    ) -> Child:
        """Fork a child.

        Args:
            job: A name in ``JOBS``.
            arguments: For the job, JSON values.
            step: In which step of ``steps.STEPS`` it dies; empty for none.
            at: At which meeting of it, if not at the step's own.
            settings: Django settings that differ.
            statements: SQL that is executed on each new connection, by the alias.
            databases: What differs in ``DATABASES``, by the alias.
            file_limit: No file may grow beyond so many bytes.
            read_only: After so many writes SQLite refuses them, so many times.
        """
        number = next(self._numbers)
        log = self._directory / f"child-{number}.log"
        met = self._directory / f"child-{number}.met"
        pid = self.ask(
            do="fork",
            job=job,
            arguments=arguments,
            step=step,
            at=at,
            settings=settings or {},
            statements=statements or {},
            databases=databases or {},
            file_limit=file_limit,
            read_only=read_only,
            log=str(log),
            met=str(met),
        )
        return Child(self, pid, log, met)

    def run(self, job: str, *arguments: Any, **options: Any) -> Child:
        """Fork a child, wait for its end, and return it."""
        child = self.start(job, *arguments, **options)
        child.wait()
        return child

    def ask(self, **request: Any) -> Any:
        """Send a line and return the answer."""
        assert self._process.stdin and self._process.stdout
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the nursery has ended"
        return json.loads(answer)

    def close(self) -> None:
        """End it, and all children that still live."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()


def _answer(request: dict[str, Any]) -> Any:
    if request["do"] == "poll":
        pid, status = os.waitpid(request["pid"], os.WNOHANG)
        return None if pid == 0 else os.waitstatus_to_exitcode(status)
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = _live(request)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _live(request: dict[str, Any]) -> int:
    """Be a child."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nothing, log, log)):
        os.dup2(file, number)
    random.seed()  # or all children would draw the same

    from django.test import override_settings

    from tests.faults import jobs, steps

    _limit(request["file_limit"])
    with override_settings(**request["settings"]):
        jobs.change_databases(request["databases"], request["statements"])
        if request["read_only"]:
            jobs.refuse_writes(*request["read_only"])
        if request["step"]:
            steps.lay_trap(request["step"], request["at"], Path(request["met"]))
        try:
            getattr(jobs, request["job"])(*request["arguments"])
        finally:
            sys.setprofile(None)
    return 0


def _limit(size: int | None) -> None:
    if size is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def main() -> None:
    """Answer one line after the other."""
    import django

    django.setup()

    from tests.faults import jobs

    jobs.prepare()
    for line in sys.stdin:
        answer = json.dumps(_answer(json.loads(line)))
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
