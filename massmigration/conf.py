"""The settings of massmigration: typed, checked, and read from Django's settings each time."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from massmigration.exceptions import ConfigurationError

DEFAULT_BACKEND: Final = "massmigration.backends.local.LocalBackend"


def _read(name: str, default: Any) -> Any:
    return getattr(settings, f"MASSMIGRATION_{name}", default)


def _refuse(name: str, value: object, rule: str, *, default: str = "") -> ConfigurationError:
    hint = f" or leave it out (default: {default})" if default else ""
    return ConfigurationError(f"MASSMIGRATION_{name} is {value!r}, but it has to be {rule}. Correct it{hint}.")


def _read_number(name: str, default: float, minimum: float) -> float:
    value = _read(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= minimum:
        raise _refuse(name, value, f"a number of at least {minimum:g}", default=f"{default:g}")
    return value


def _read_integer(name: str, default: int, minimum: int) -> int:
    value = _read_number(name, default, minimum)
    if value != int(value):
        raise _refuse(name, value, "a whole number", default=str(default))
    return int(value)


def _read_string(name: str, default: str) -> str:
    value = _read(name, default)
    if not isinstance(value, (str, Path)):
        raise _refuse(name, value, "a string")
    return str(value)


def _read_flag(name: str, *, default: bool) -> bool:
    value = _read(name, default)
    if not isinstance(value, bool):
        raise _refuse(name, value, "True or False", default=str(default))
    return value


def _read_environment(name: str, default: float) -> float:
    text = os.environ.get(f"MASSMIGRATION_{name}", "")
    try:
        return float(text) if text else default
    except ValueError:
        raise ConfigurationError(
            f"The environment variable MASSMIGRATION_{name} is {text!r}, but it has to be a number of seconds. "
            f"Correct it or leave it out (default: {default:g})."
        ) from None


class Conf:
    """Live view of the ``MASSMIGRATION_…`` settings; each property raises ConfigurationError on a bad value."""

    @property
    def backend(self) -> str:
        """Dotted path of the backend class that runs migrations that name no ``backend``."""
        return _read_string("BACKEND", DEFAULT_BACKEND)

    @property
    def task_queue(self) -> str | None:
        """Name of the queue that tasks are put on; None leaves it to the backend."""
        return _read_string("TASK_QUEUE", "") or None

    @property
    def task_project(self) -> str:
        """Google Cloud project of the queue."""
        return _read_string("TASK_PROJECT", "") or os.environ.get("GOOGLE_CLOUD_PROJECT", "")

    @property
    def task_location(self) -> str:
        """Region of the queue, such as ``europe-west1``."""
        return _read_string("TASK_LOCATION", "")

    @property
    def task_url(self) -> str:
        """Base URL of the site for tasks that are sent as plain HTTP requests; empty for App Engine's own routing."""
        url = _read_string("TASK_URL", "").rstrip("/")
        if url and not url.startswith(("https://", "http://")):
            raise _refuse("TASK_URL", url, "a URL that begins with https://")
        return url

    @property
    def task_service_account(self) -> str:
        """E-mail address of the service account that sends tasks to ``task_url``."""
        return _read_string("TASK_SERVICE_ACCOUNT", "")

    @property
    def task_deadline(self) -> float:
        """After how many seconds the platform gives up the request that delivers a task."""
        return _read_number("TASK_DEADLINE", _read_environment("TASK_DEADLINE", 600), 15)

    @property
    def watch_seconds(self) -> float:
        """How often a run on a queue is checked for shards whose worker or task got lost."""
        return _read_number("WATCH_SECONDS", 60, 0.1)

    @property
    def record_cache_timeout(self) -> float:
        """For how many seconds workers reuse a status that they have read."""
        return _read_number("RECORD_CACHE_TIMEOUT", 2, 0)

    @property
    def modules(self) -> dict[str, str | None]:
        """Dotted package of the mass migrations per app label; None means that the app has none."""
        value = _read("MODULES", {})
        if not isinstance(value, dict) or not all(
            isinstance(label, str) and (module is None or isinstance(module, str)) for label, module in value.items()
        ):
            raise _refuse("MODULES", value, "a dictionary from app labels to dotted packages (or None)")
        return value

    @property
    def shard_count(self) -> int:
        """How many key ranges the rows are split into at first."""
        return _read_integer("SHARD_COUNT", 8, 1)

    @property
    def batch_seconds(self) -> float:
        """How long one batch should take; the batch size is adjusted to that."""
        return _read_number("BATCH_SECONDS", 0.5, 0.001)

    @property
    def slice_seconds(self) -> float:
        """How long a worker stays with one shard before other shards get a turn."""
        return _read_number("SLICE_SECONDS", 60, 0.001)

    @property
    def lease_seconds(self) -> float:
        """After how long without a renewed lease another worker takes over a shard."""
        return _read_number("LEASE_SECONDS", 30, 0.1)

    @property
    def max_retries(self) -> int:
        """How often a batch is repeated after a transient error, such as a deadlock."""
        return _read_integer("MAX_RETRIES", 5, 0)

    @property
    def max_running(self) -> int:
        """How many migrations may run on one database at once; 0 for any number."""
        return _read_integer("MAX_RUNNING", 0, 0)

    @property
    def hang_seconds(self) -> float:
        """After how long without a finished object a worker counts as hung, although its process is alive."""
        return _read_number("HANG_SECONDS", 600, 0.1)

    @property
    def python(self) -> str:
        """The Python interpreter that worker processes are started with."""
        return _read_string("PYTHON", "") or find_python()

    @property
    def log_dir(self) -> Path:
        """The folder that detached processes write their logs to."""
        user = os.getuid() if hasattr(os, "getuid") else "logs"
        return Path(_read_string("LOG_DIR", str(Path(tempfile.gettempdir()) / f"massmigration-{user}")))

    @property
    def show_database_details(self) -> bool:
        """Whether errors keep what a database adds to them, which may be the values of rows."""
        return _read_flag("SHOW_DATABASE_DETAILS", default=False)


SETTING_NAMES: Final = tuple(
    f"MASSMIGRATION_{name.upper()}" for name in vars(Conf) if isinstance(vars(Conf)[name], property)
)


def find_python() -> str:
    """Return the path of this process's Python; under uWSGI ``sys.executable`` is not one."""
    if sys.executable and Path(sys.executable).name.lower().startswith(("python", "pypy")):
        return sys.executable
    folder = Path(sys.prefix) / ("Scripts" if os.name == "nt" else "bin")
    for name in ("python3", "python", "python.exe"):
        if (folder / name).exists():
            return str(folder / name)
    return "python3"


conf: Final = Conf()
