"""Shortcuts for write transactions by alias, as ``django.db.transaction`` has them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from massmigration.databases.registry import get_database

Result = TypeVar("Result")


def write_transaction(db_alias: str) -> AbstractContextManager[None]:
    """Open a transaction that is going to write; see ``BaseDatabase.write_transaction``."""
    return get_database(db_alias).write_transaction()


def run_write(db_alias: str, write: Callable[[], Result], *, patience: float | None = None) -> Result:
    """Call ``write`` in a write transaction, and repeat it while other writers are in the way.

    Arguments, result and errors are those of ``BaseDatabase.run_write``.
    """
    return get_database(db_alias).run_write(write, patience=patience)
