"""Runs definitions that a test writes down in place, through the executor and the workers' loop."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import connections

from massmigration import executor, recorder, worker
from massmigration.definitions.base import BaseMigration
from massmigration.engine import progress
from massmigration.engine.progress import Progress
from massmigration.models import MigrationShard
from massmigration.recorder import Author

AUTHOR = Author("tester", "api")

Definition = TypeVar("Definition", bound=BaseMigration)


def make(definition: type[Definition], name: str = "0001_test") -> Definition:
    """Return an instance, as the loader would make it."""
    return definition("testapp", name)


def change(migration: BaseMigration, **attributes: Any) -> None:
    """Give a definition other attributes or methods, as an author does who edits the file.

    Not on the instance, because each worker has its own, and not on the class, which other tests use.
    """
    functions = {name: staticmethod(value) if callable(value) else value for name, value in attributes.items()}
    migration.__class__ = type("Migration", (type(migration),), functions)


def start(migration: BaseMigration, db_alias: str) -> uuid.UUID:
    """Start a new attempt whose work is left to the test."""
    record = executor.start(migration, db_alias, AUTHOR, enqueue=False)
    assert record.attempt_uuid is not None
    return record.attempt_uuid


def get_progress(key: str, db_alias: str, migration: BaseMigration | None) -> Progress:
    """Return where a definition stands that no file holds."""
    return progress.get_progress(progress.Subject(key, migration), db_alias)


def work(migration: BaseMigration, db_alias: str, **options: Any) -> Progress:
    """Work the record's attempt off in this thread."""
    record = recorder.get_record(migration.key, db_alias)
    assert record is not None and record.attempt_uuid is not None
    worker.work(migration, db_alias, record.attempt_uuid, **options)
    return get_progress(migration.key, db_alias, migration)


def run(definition: type[BaseMigration] | BaseMigration, db_alias: str, **options: Any) -> Progress:
    """Start a definition and work it off in this thread."""
    migration = definition if isinstance(definition, BaseMigration) else make(definition)
    start(migration, db_alias)
    return work(migration, db_alias, **options)


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls at the same time, each in a thread with connections of its own; raise the first error."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def call(number: int) -> None:
        try:
            results[number] = calls[number]()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def wait_until_waited_for(db_alias: str, seconds: float = 60) -> bool:
    """Wait until another session of PostgreSQL waits for a lock of ours; return whether one did within the time."""
    deadline = time.monotonic() + seconds
    with connections[db_alias].cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute(
                "SELECT EXISTS (SELECT 1 FROM pg_locks "
                "WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
            )
            if cursor.fetchone() == (True,):
                return True
            time.sleep(0.02)
    return False


def claim_range(migration: BaseMigration, db_alias: str, worker: str = "a") -> MigrationShard:
    """Plan the attempt if need be, and claim its first open range as ``worker``."""
    from massmigration.engine import leases
    from massmigration.engine.slice import Slice

    while True:
        record = recorder.get_record(migration.key, db_alias)
        assert record is not None
        for shard in recorder.get_shards(record.attempt_uuid, db_alias):
            if leases.is_claimable(shard) and leases.claim(shard, migration, db_alias, worker):
                if shard.kind == MigrationShard.RANGE:
                    return shard
                Slice(shard, migration, db_alias).run()
                break
        else:
            raise AssertionError("no range is open")
