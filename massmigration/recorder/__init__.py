"""The only writer of the tables in ``models.py``, so that of two people, or of two workers, only one wins."""

from massmigration.recorder.attempts import (
    add_attempt,
    change_source,
    get_attempt,
    get_attempts,
    keep_totals,
    record_watch,
    update_attempt,
)
from massmigration.recorder.events import Author, add_event, get_events
from massmigration.recorder.failures import (
    FailureCounts,
    FailureFilter,
    close_failures,
    close_selected,
    count_failures,
    count_open_failures,
    get_failures,
    is_accepted,
    iterate_failures,
    keep_failure,
)
from massmigration.recorder.freeing import free_shards, open_again, skip_object
from massmigration.recorder.holding import ShardRecorder
from massmigration.recorder.making import Part, ShardMaker
from massmigration.recorder.records import (
    delete_record,
    fail,
    get_keys,
    get_record,
    get_records,
    get_running,
    has_tables,
    insert_record,
    lock_record,
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
    "close_failures",
    "close_selected",
    "count_failures",
    "count_open_failures",
    "delete_record",
    "delete_shards",
    "fail",
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
    "is_accepted",
    "iterate_failures",
    "keep_failure",
    "keep_totals",
    "lock_record",
    "move",
    "open_again",
    "record_watch",
    "refuse",
    "skip_object",
    "update_attempt",
]
