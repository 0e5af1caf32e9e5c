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
from massmigration.recorder.holding import ShardRecorder
from massmigration.recorder.making import Part, ShardMaker
from massmigration.recorder.records import (
    Seen,
    check_seen,
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
from massmigration.recorder.shards import (
    delete_shards,
    free_shards,
    get_shard,
    get_shards,
    in_order,
    open_again,
    skip_object,
)
