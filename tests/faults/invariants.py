"""What has to hold of a migration's numbers at every moment, and once it is applied."""

from __future__ import annotations

import uuid

from massmigration import api, recorder, states
from massmigration.models import MigrationShard


def check_numbers(key: str, db_alias: str, *, visits: int | None = None) -> None:
    """Look whether the counters add up, at any moment.

    Args:
        key: The migration's key.
        db_alias: The database.
        visits: How many rows committed batches have visited; None if nobody can tell.
    """
    record = recorder.get_record(key, db_alias)
    attempt_uuid = record.attempt_uuid if record is not None else None
    ranges = _get_ranges(attempt_uuid, db_alias)
    progress = api.get_progress(key, db_alias)
    if attempt_uuid is None or progress.processed is None:
        return
    after = _get_ranges(attempt_uuid, db_alias)  # others may be at work
    assert sum(shard.processed for shard in ranges) <= progress.processed <= sum(shard.processed for shard in after)
    for shard in ranges:
        assert 0 <= shard.changed <= shard.processed, shard
    assert (progress.changed or 0) <= progress.processed
    assert progress.total is None or progress.processed <= progress.total
    if visits is not None:
        assert progress.processed == visits, "processed are the rows that committed batches visited"


def _get_ranges(attempt_uuid: uuid.UUID | None, db_alias: str) -> list[MigrationShard]:
    shards = recorder.get_shards(attempt_uuid, db_alias)
    return [shard for shard in shards if shard.kind == MigrationShard.RANGE]


def check_end(key: str, db_alias: str, *, visits: int | None = None) -> None:
    """Look whether an applied migration left nothing open."""
    check_numbers(key, db_alias, visits=visits)
    record = recorder.get_record(key, db_alias)
    assert record is not None and record.status == states.APPLIED, record
    for shard in recorder.get_shards(record.attempt_uuid, db_alias):
        assert (shard.status, shard.worker, shard.lease_expires_at) == (MigrationShard.DONE, "", None), shard
    attempt = recorder.get_attempt(record.attempt_uuid, db_alias)
    assert attempt is not None and attempt.finished_at is not None
    assert attempt.processed == api.get_progress(key, db_alias).processed
    assert recorder.count_open_failures(record.attempt_uuid, db_alias) == 0
