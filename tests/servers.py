"""Finds, starts and stops the real servers that the tests run on."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

INSTALL_POSTGRES = (
    "PostgreSQL is not available: to run this test, install psycopg and PostgreSQL "
    "(Debian: apt install postgresql, macOS: brew install postgresql)."
)

POSTGRES_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)

# Our end of the pipe closes however this process dies: then the server stops and its directory goes.
KEEPER = '"$@" >server.log 2>&1 & cat >/dev/null; kill -INT $!; wait $!; cd / && rm -rf "$0"'


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


def get_postgres() -> dict[str, Any] | None:
    """Return the connection settings of PostgreSQL, or None where there is none.

    ``MASSMIGRATION_TEST_POSTGRES`` names a running server (``postgresql://user:password@host:port``) and
    is set for the processes that tests start. Without it, a test run starts a server of its own.
    """
    if "MASSMIGRATION_TEST_POSTGRES" not in os.environ and is_test_run():
        os.environ["MASSMIGRATION_TEST_POSTGRES"] = start_postgres() or ""
    url = urlsplit(os.environ.get("MASSMIGRATION_TEST_POSTGRES", ""))
    if not url.hostname:
        return None
    return {
        "HOST": url.hostname,
        "PORT": url.port or 5432,
        "USER": unquote(url.username or "postgres"),
        "PASSWORD": unquote(url.password or ""),
    }


def find_postgres() -> Path | None:
    """Return the directory with ``initdb`` and ``postgres``, or None where PostgreSQL is not installed."""
    candidates = [Path(found).resolve().parent for name in ("initdb", "postgres") if (found := shutil.which(name))]
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True)
        candidates.append(Path(answer.stdout.strip()))
    for pattern in POSTGRES_PLACES:
        candidates += sorted(Path("/").glob(pattern[1:]), key=_version, reverse=True)
    return next((path for path in candidates if (path / "initdb").exists() and (path / "postgres").exists()), None)


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.parent.name.replace("@", "-").split("-") if part.isdigit())


def start_postgres() -> str | None:
    """Start a server with an empty cluster on a free port and return its URL, or None where it cannot be.

    PostgreSQL refuses to run as root, so that root starts it as another user.
    """
    binaries = find_postgres()
    try:
        import psycopg
    except ImportError:
        return None
    if binaries is None:
        return None

    directory = tempfile.mkdtemp(prefix="massmigration-postgres-")
    identity = _get_identity()
    if identity:
        os.chown(directory, identity["user"], identity["group"])
    options: dict[str, Any] = {"cwd": directory, **identity}
    _make_cluster(binaries, options)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
    }
    command = [str(binaries / "postgres"), "-D", "data", "-p", str(port)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    keeper = subprocess.Popen(
        ["sh", "-c", KEEPER, directory, *command], stdin=subprocess.PIPE, start_new_session=True, **options
    )
    atexit.register(stop_postgres, keeper, os.getpid())

    url = f"postgresql://postgres@127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(f"{url}/postgres").close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                log = Path(directory, "server.log").read_text()
                raise RuntimeError(f"PostgreSQL did not start within 60 seconds: {log}") from error
            time.sleep(0.05)
        else:
            return url


def _get_identity() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return {}


def _make_cluster(binaries: Path, options: dict[str, Any]) -> None:
    command = [str(binaries / "initdb"), "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    # With ICU strings sort as on most real servers: not as in Python. Old versions do not have it.
    for locale in (["--locale-provider=icu", "--icu-locale=en-US", "--locale=C"], ["--no-locale"]):
        answer = subprocess.run([*command, *locale], capture_output=True, text=True, **options)
        if answer.returncode == 0:
            return
    raise RuntimeError(f"initdb failed: {answer.stderr}")


def stop_postgres(keeper: subprocess.Popen[bytes], pid: int) -> None:
    """Stop the server behind ``keeper`` if this is the process ``pid`` that started it."""
    if os.getpid() == pid and keeper.stdin:
        keeper.stdin.close()
        keeper.wait(timeout=60)
