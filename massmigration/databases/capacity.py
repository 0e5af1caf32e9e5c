"""How many connections to the database a worker needs, and what an error means when there is none left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

CONNECTIONS_PER_WORKER: Final = 2
"""One for its batches, and a second one for its heartbeat while an operation is longer than a third of the lease."""

_SHORTAGE: Final = re.compile(
    r"too many (?:clients|connections)|connection slots are reserved|max_user_connections"
    r"|couldn't get a connection after",
    re.IGNORECASE,
)
"""PostgreSQL's and MySQL's words for it, and those of psycopg's pool."""


def explain_shortage(message: str) -> str:
    """Return a sentence with the way out if a database's error says that no connection is left, else ""."""
    if _SHORTAGE.search(message) is None:
        return ""
    return (
        f"The database has no connection left. Each worker thread needs {CONNECTIONS_PER_WORKER} while an operation is "
        "long: let fewer work at once, or let the pool and the database have more."
    )


def find_pool_fault(settings: Mapping[str, Any]) -> str:
    """Return why a pool of connections, as set in ``DATABASES``, is too small for a single worker, or ""."""
    pool = settings.get("OPTIONS", {}).get("pool")
    if not isinstance(pool, Mapping):
        return ""  # none, or psycopg's default, which has four
    size = pool.get("max_size") or pool.get("min_size", 4)
    if not isinstance(size, int) or size >= CONNECTIONS_PER_WORKER:
        return ""
    return (
        f"its pool has {size} connection, but a worker needs {CONNECTIONS_PER_WORKER} while an operation is long, or "
        "its lease is not renewed and another worker takes the shard over"
    )
