"""LocalBackend: no broker and no daemon; the shard table is the queue, and processes of this machine work on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from django.conf import settings

from massmigration.backends.base import BaseBackend
from massmigration.backends.callers import is_app_engine
from massmigration.backends.logfiles import make_log_path, open_log
from massmigration.conf import conf
from massmigration.databases.registry import get_database
from massmigration.exceptions import BackendUnreachable, ConfigurationError


class LocalBackend(BaseBackend):
    """Runs migrations on this machine.

    ``massmigrate`` does the work in its own process, or in ``--workers N``; a start from elsewhere makes one detached
    process, which outlives the request and the terminal.
    """

    supports_queue: ClassVar[bool] = False
    has_workers = False  # a command works by itself, beside the process that a start from elsewhere has made

    def enqueue(
        self, task: str, arguments: dict[str, Any], *, db_alias: str, delay_seconds: float = 0, name: str = ""
    ) -> None:
        """Do nothing: workers find their work in the shard table."""

    def launch(self, key: str, db_alias: str, attempt_uuid: uuid.UUID, shard_ids: Sequence[str]) -> str:
        """Start one detached process that works on the attempt, and return the path of its log."""
        log_path = make_log_path(key, attempt_uuid)
        start_detached(make_worker_command(key, db_alias, attempt_uuid), log_path)
        return str(log_path)

    def check_launch(self, db_alias: str, *, origin: str) -> None:
        """Refuse what a second process cannot see, a wrong interpreter, and hosts that stop processes early."""
        check_second_process(db_alias)
        check_interpreter()
        host = "GAE_ENV" if is_app_engine() else "K_SERVICE" if os.environ.get("K_SERVICE") else None
        if host is not None and origin != "command":
            raise ConfigurationError(
                f"This site runs where processes end with the request ({host} is set), so LocalBackend cannot work "
                "here. Set MASSMIGRATION_BACKEND to a backend with a queue."
            )


def check_second_process(db_alias: str) -> None:
    """Raise ConfigurationError if another process could not see this database or load these settings."""
    if get_database(db_alias).is_in_memory:
        raise ConfigurationError(
            f"Database '{db_alias}' lives in this process's memory, so no other process can work on it. Run "
            "massmigrate without --workers and --no-wait, or set its NAME in DATABASES to a file."
        )
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        raise ConfigurationError(
            "A second process needs DJANGO_SETTINGS_MODULE in the environment, but it is not set. Set it to your "
            "settings module."
        )


def check_interpreter() -> str:
    """Return the interpreter of worker processes.

    Raises:
        BackendUnreachable: It is not there, or cannot be executed.
    """
    if shutil.which(conf.python) is None:
        raise BackendUnreachable(
            f"No process can be started with MASSMIGRATION_PYTHON: {conf.python} is not an executable file. Set it to "
            "the path of a Python interpreter, or leave it empty."
        )
    return conf.python


def make_worker_command(key: str, db_alias: str, attempt_uuid: uuid.UUID) -> list[str]:
    """Return the command of a worker process, which changes nothing if it does not find the attempt.

    Raises:
        BackendUnreachable: There is no interpreter to start it with.
    """
    options = [f"--database={db_alias}", f"--attempt={attempt_uuid}", "--noinput"]
    return [check_interpreter(), "-m", "django", "massmigrate", *key.split(":"), *options]


def make_environment() -> dict[str, str]:
    """Return the environment of a worker process: this one's, with its settings and import path."""
    settings_module = getattr(settings, "SETTINGS_MODULE", None) or os.environ["DJANGO_SETTINGS_MODULE"]
    path = os.pathsep.join(dict.fromkeys(entry or str(Path.cwd()) for entry in sys.path))
    return {**os.environ, "DJANGO_SETTINGS_MODULE": settings_module, "PYTHONPATH": path}


def start_detached(command: list[str], log_path: Path) -> None:
    """Start a process that is not our child, so that it outlives us and leaves no zombie; it appends to the log.

    Raises:
        BackendUnreachable: It could not be started, or the log is not a plain file of ours.
    """
    started_at = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    try:
        with open_log(log_path) as log:
            log.write(f"--- started {started_at}\n".encode())
            log.flush()
            options: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": log,
                "stderr": subprocess.STDOUT,
                "env": make_environment(),
            }
            if os.name == "nt":
                flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP  # type: ignore[attr-defined]
                subprocess.Popen(command, creationflags=flags, **options)
                return
            # The shell forks again and ends at once: init adopts the process, and the shell is reaped.
            shell = ["/bin/sh", "-c", '"$@" &', "sh", *command]
            subprocess.run(shell, start_new_session=True, check=True, timeout=30, **options)
    except (OSError, subprocess.SubprocessError) as error:
        raise BackendUnreachable(
            f"The detached process could not be started: {error}. Run massmigrate in a terminal instead."
        ) from error
