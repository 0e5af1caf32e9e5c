"""Runs a migration within a test."""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS

from massmigration import api, states
from massmigration.worker import work


def run_migration(key: api.Key, db_alias: str = DEFAULT_DB_ALIAS) -> api.Progress:
    """Start a migration and work it off in this process, whatever its backend is.

    Args:
        key: The migration.
        db_alias: The database.

    Returns:
        Where it stands in the end.

    Raises:
        AssertionError: It was not applied; the message is the record's error.
    """
    record = api.start_migration(key, db_alias, actor="test", enqueue=False)
    assert record.attempt_uuid is not None
    work(api.get_migration(key), db_alias, record.attempt_uuid)
    progress = api.get_progress(key, db_alias)
    if progress.status != states.APPLIED:
        raise AssertionError(f"{progress.key} is {states.LABELS[progress.status]}: {progress.error}")
    return progress
