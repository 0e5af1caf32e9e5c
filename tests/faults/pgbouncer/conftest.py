"""Fixtures of the tests behind PgBouncer: with ``pool`` the alias ``postgres`` means it, here and in children."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connections

from tests.servers import pgbouncer
from tests.servers.processes import Server

ALIAS = "postgres"
POOL_SIZE = 2

# PgBouncer itself sets these on a connection when a client with other values takes it.
TRACKED = (
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "standard_conforming_strings",
    "application_name",
    "IntervalStyle",
)
STATE = f"""
SELECT 'setting ' || name || ' = ' || setting FROM pg_settings
 WHERE source = 'session' AND name NOT IN {TRACKED}
UNION ALL SELECT 'advisory lock ' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'prepared statement ' || name FROM pg_prepared_statements
UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable
"""


class Pool:
    """PgBouncer with a small pool, in transaction mode.

    Args:
        server: PgBouncer.
        postgres: The connection settings that it was given.
        name: The test database.
        size: How many connections it makes.
    """

    def __init__(self, server: Server, postgres: dict[str, Any], name: str, size: int) -> None:
        self.port = server.port
        self.size = size
        self.url = f"postgresql://{postgres['USER']}@{server.address}"
        self.server_url = f"postgresql://{postgres['USER']}@{postgres['HOST']}:{postgres['PORT']}/{name}"
        self._database = f"{self.url}/{name}"

    def find_state(self) -> list[str]:
        """Return what its connections to the server still have that belongs to nobody who uses them next."""
        import psycopg

        found: list[str] = []
        with ExitStack() as stack:  # all at once, or some of them would be looked at twice
            for _ in range(self.size):
                connection = stack.enter_context(psycopg.connect(self._database, prepare_threshold=None))
                found += [row[0] for row in connection.execute(STATE)]
        return found


@pytest.fixture
def pool(request: pytest.FixtureRequest, transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """Return the pool; ``pytest.mark.parametrize("pool", [1], indirect=True)`` makes one of another size."""
    if pgbouncer.find_pgbouncer() is None:
        pytest.skip(pgbouncer.INSTALL_PGBOUNCER)
    connection = connections[ALIAS]
    before = connection.settings_dict.copy()
    options = request.param if hasattr(request, "param") else {}
    size = options.setdefault("pool_size", POOL_SIZE)
    server = pgbouncer.start_pgbouncer(before, **options)
    made = Pool(server, before, before["NAME"], size)
    monkeypatch.setenv("MASSMIGRATION_TEST_POSTGRES", made.url)
    connection.close()
    connection.settings_dict.update(PORT=server.port, HOST="127.0.0.1", DISABLE_SERVER_SIDE_CURSORS=True)
    yield made
    connection.close()
    connection.settings_dict.clear()
    connection.settings_dict.update(before)
    server.stop()
