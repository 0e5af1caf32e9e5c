"""PgBouncer in transaction mode, in front of the PostgreSQL server of a test run."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.servers.postgres import get_identity
from tests.servers.processes import Server, get_free_port, start

INSTALL_PGBOUNCER = (
    "PgBouncer is not installed: to run this test, install it "
    "(Debian: apt install pgbouncer, macOS: brew install pgbouncer)."
)

# Debian's is not on the PATH of everyone.
PATHS = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"))

# Each transaction takes the connection that rested longest: so the next one of a client is on another connection.
CONFIGURATION = """
[databases]
* = {target}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
server_round_robin = 1
max_client_conn = 200
query_wait_timeout = {query_wait_seconds}
"""


def find_pgbouncer() -> str | None:
    """Return the program, or None where PgBouncer is not installed."""
    return shutil.which("pgbouncer", path=PATHS)


def start_pgbouncer(postgres: dict[str, Any], *, pool_size: int, query_wait_seconds: int = 120) -> Server:
    """Start PgBouncer and return when it listens.

    Like PostgreSQL it refuses to run as root.

    Args:
        postgres: The connection settings of the server behind it, as ``get_postgres`` returns them.
        pool_size: How many connections it makes to one database.
        query_wait_seconds: For how long a client waits for one of them before it gets an error.
    """
    program = find_pgbouncer()
    assert program is not None, INSTALL_PGBOUNCER
    directory = Path(tempfile.mkdtemp(prefix="massmigration-pgbouncer-"))
    port = get_free_port()
    target = {name.lower(): postgres[name] for name in ("HOST", "PORT", "USER", "PASSWORD") if postgres[name]}
    text = CONFIGURATION.format(
        target=" ".join(f"{name}={value}" for name, value in target.items()),
        own_port=port,
        pool_size=pool_size,
        query_wait_seconds=query_wait_seconds,
    )
    (directory / "pgbouncer.ini").write_text(text)
    identity = get_identity()
    if identity:
        os.chown(directory, identity["user"], identity["group"])
    server = start("PgBouncer", port, [program, "pgbouncer.ini"], directory, **identity)
    server.wait(lambda server: "process up" in server.read_log(), seconds=30)
    return server
