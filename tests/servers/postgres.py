"""PostgreSQL: a server with an empty cluster, for one test run."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.servers.processes import Server, get_free_port, is_test_run, start

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
    identity = get_identity()
    if identity:
        os.chown(directory, identity["user"], identity["group"])
    _make_cluster(binaries, {"cwd": directory, **identity})

    port = get_free_port()
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
    server = start("PostgreSQL", port, command, Path(directory), **identity)
    url = f"postgresql://postgres@{server.address}"

    def is_ready(server: Server) -> bool:
        try:
            psycopg.connect(f"{url}/postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    server.wait(is_ready, seconds=60)
    return url


def get_identity() -> dict[str, Any]:
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
