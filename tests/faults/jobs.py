"""What the children of the nursery do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from django.core.management import call_command
from django.db import connections
from django.db.backends.signals import connection_created

from massmigration import api, executor, recorder, worker
from massmigration.discovery.loader import get_loader
from massmigration.recorder import Author
from tests.faults.queues import FolderBackend

AUTHOR = Author("child", "api")


def prepare() -> None:
    """Import what every child needs, so that none has to; opens no connection."""
    import massmigration.management.commands.massmigrate
    import massmigration.management.commands.massmigration
    import massmigration.tasks  # noqa: F401
    import tests.faults.steps  # noqa: F401

    get_loader()
    connections.all()  # loads the backends


def change_databases(changes: Mapping[str, Mapping[str, Any]], statements: Mapping[str, list[str]]) -> None:
    """Have connections that are opened from now on differ.

    Args:
        changes: What differs in the settings of a database, by its alias.
        statements: SQL to execute on each new connection, by the alias.
    """
    for alias, change in changes.items():
        connections[alias].settings_dict.update(change)

    def execute(connection: Any, **kwargs: Any) -> None:
        for statement in statements.get(connection.alias, ()):
            with connection.cursor() as cursor:
                cursor.execute(statement)

    connection_created.connect(execute, weak=False)


def refuse_writes(after: int, times: int) -> None:
    """Make SQLite's file read-only for this process, after so many writes and for so many."""
    left = after + times

    def execute(run: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
        nonlocal left
        if not sql.startswith(("INSERT", "UPDATE", "DELETE")):
            return run(sql, parameters, many, context)
        left -= 1
        is_refused = 0 <= left < times
        connection = context["connection"].connection
        connection.execute(f"PRAGMA query_only = {int(is_refused)}")
        try:
            return run(sql, parameters, many, context)
        finally:
            connection.execute("PRAGMA query_only = 0")

    connections["default"].execute_wrappers.append(execute)


def command(*arguments: str) -> None:
    """Type a command."""
    call_command(*arguments)


def start(key: str, db_alias: str) -> None:
    """Press the button."""
    api.start_migration(key, db_alias)


def work(key: str, db_alias: str, seconds: float = 120) -> None:
    """Be a worker of the attempt that there is, until it ends or the time is over."""
    record = recorder.get_record(key, db_alias)
    if record is None or record.attempt_uuid is None:
        return
    deadline = time.monotonic() + seconds
    worker.work(api.get_migration(key), db_alias, record.attempt_uuid, should_stop=lambda: time.monotonic() > deadline)


def massmigrate(key: str, db_alias: str) -> None:
    """Start what was not started, and work on what there is, as ``massmigrate`` does without its display."""
    record = recorder.get_record(key, db_alias)
    if record is None:
        executor.start(api.get_migration(key), db_alias, AUTHOR, enqueue=False)
    work(key, db_alias)


def deliver(seconds: float = 30, *, twice: bool = False) -> None:
    """Call the tasks that wait on the queue, until none is left or the time is over."""
    FolderBackend.deliver_all(seconds, twice=twice)
