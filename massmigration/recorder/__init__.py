"""The only writer of the tables in ``models.py``, so that two people, or two workers, cannot both win."""

from massmigration.recorder.attempts import (
    add_attempt,
    change_source,
    get_attempt,
    get_attempts,
    keep_totals,
    note_watch,
    update_attempt,
)
from massmigration.recorder.failures import (
    FailureCounts,
    FailureFilter,
    count_failures,
    count_open_failures,
    get_failures,
    iterate_failures,
    keep_failure,
    mark_failures_retried,
)
from massmigration.recorder.freeing import free_shards, open_again, skip_object
from massmigration.recorder.holding import ShardRecorder
from massmigration.recorder.making import Part, ShardMaker
from massmigration.recorder.records import (
    Author,
    add_event,
    delete_record,
    get_events,
    get_keys,
    get_record,
    get_records,
    get_running,
    has_tables,
    insert_record,
    move,
    refuse,
)
from massmigration.recorder.seen import Seen, check_seen
from massmigration.recorder.shards import delete_shards, get_shard, get_shards, in_order

__all__ = [
    "Author",
    "FailureCounts",
    "FailureFilter",
    "Part",
    "Seen",
    "ShardMaker",
    "ShardRecorder",
    "add_attempt",
    "add_event",
    "change_source",
    "check_seen",
    "count_failures",
    "count_open_failures",
    "delete_record",
    "delete_shards",
    "free_shards",
    "get_attempt",
    "get_attempts",
    "get_events",
    "get_failures",
    "get_keys",
    "get_record",
    "get_records",
    "get_running",
    "get_shard",
    "get_shards",
    "has_tables",
    "in_order",
    "insert_record",
    "iterate_failures",
    "keep_failure",
    "keep_totals",
    "mark_failures_retried",
    "move",
    "note_watch",
    "open_again",
    "refuse",
    "skip_object",
    "update_attempt",
]
