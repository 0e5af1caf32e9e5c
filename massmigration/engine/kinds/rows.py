"""How batches of a queryset are handled: read in windows of keys, locked or compared, visited once."""

from __future__ import annotations

import json
import time
from typing import Any

from massmigration.databases.keyfilters import get_key_fields
from massmigration.databases.ranges import KeyRange
from massmigration.databases.tables import Reading
from massmigration.databases.writeback import get_fields
from massmigration.definitions.base import QuerysetMigration
from massmigration.definitions.batch import BatchMigration
from massmigration.definitions.mapper import MapperMigration
from massmigration.engine.callbacks import Traces
from massmigration.engine.growth import Extension, RowsAhead, extend, find_upper, learn_end, settle
from massmigration.engine.kinds.processor import Batch, Processor, Written
from massmigration.engine.methods import call
from massmigration.engine.pacing import LARGEST_SIZE, Pacer
from massmigration.engine.snapshots import Snapshot, prepare_related
from massmigration.engine.tables import decode_range, get_rest, get_table, is_until_empty
from massmigration.exceptions import RetryLater
from massmigration.models import MigrationShard


class QuerysetProcessor(Processor):
    """What goes through a queryset in the order of its keys, window by window."""

    migration: QuerysetMigration
    reads_rows = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.table = get_table(self.migration, self.db_alias)
        self.until_empty = is_until_empty(self.migration, self.table)
        self._locks = False

    @property
    def wants_locks(self) -> bool:
        """Whether the author leaves it to us to lock the rows, or has done so in the queryset."""
        return self.can_lock and (self.migration.lock_rows or self.table.wants_locks)

    def fetch(self, shard: MigrationShard, pacer: Pacer, limit: int, *, lock: bool = False) -> Batch:
        """Read the next matching rows, window by window, for no longer than a batch may take."""
        self._locks = lock
        batch = self._fetch(shard, pacer, limit)
        batch.is_locked = lock
        return batch

    def _fetch(self, shard: MigrationShard, pacer: Pacer, limit: int) -> Batch:
        if shard.payload is not None:
            return self._fetch_listed(shard, shard.payload["keys"])
        after = shard.cursor if shard.cursor is not None else shard.lower
        if shard.upper is not None:
            upper = find_upper(self.table, shard.extension, shard.upper) if self.migration.bounded else shard.upper
            return self._fetch_between(after, upper, pacer, limit)
        extension: Extension | None = shard.extension or learn_end(self.table)  # null if an older version has planned
        if extension is None:
            return self._fetch_between(after, None, pacer, limit)
        if self.migration.bounded:
            batch = self._fetch_upto(after, extension["planned"], pacer, limit)
        else:
            batch = self._fetch_upto(after, extension["largest"], pacer, limit)
            while batch.cursor is None and (following := extend(self.table, extension)) is not None:
                extension = following
                batch = self._fetch_upto(after, extension["largest"], pacer, limit)
        batch.extension = extension
        return batch

    def _fetch_upto(self, after: str | None, upto: str | None, pacer: Pacer, limit: int) -> Batch:
        """Read up to a key that was recorded; None if the table was empty."""
        return Batch([], None, str) if upto is None else self._fetch_between(after, upto, pacer, limit)

    def settle(self, shard: MigrationShard, ahead: RowsAhead) -> Extension:
        """Return how the last range continues, or raise FinishRefused."""
        return settle(self.table, shard, ahead)

    def _fetch_between(self, after: str | None, upto: str | None, pacer: Pacer, limit: int) -> Batch:
        started_at, keys = time.monotonic(), decode_range(self.table, after, upto)
        has_windows, counts = self.table.has_windows, self._locks and self.table.locks_ranges
        while True:
            began_at = time.monotonic()
            window = max(pacer.window, limit) if has_windows else limit
            end = self.table.find_window_end(keys, window) if has_windows or counts else None
            is_counted = end is not None and window <= limit
            reading = self._read(keys if end is None else KeyRange(keys.after, end), limit, is_counted=is_counted)
            now = time.monotonic()
            if has_windows:  # a window that is known to hold a batch at most is read with one query less
                is_full = reading.is_full or (is_counted and len(reading.rows) > limit * 3 // 4)
                pacer.learn_window(is_full, now - began_at)
            if reading.rows or end is None or now - started_at > self.batch_seconds:
                break
            keys = KeyRange(end if not reading.is_full else reading.last, keys.upto)
        last = reading.last if reading.is_full or end is None else end
        return self._make_batch(reading.rows, None if last is None else self.table.codec.encode(last))

    def peek(self, shard: MigrationShard, pacer: Pacer) -> Batch:
        """Find the key of the next matching row, and read nothing else of it."""
        if shard.payload is not None:
            number, listed = json.loads(shard.cursor or "0"), shard.payload["keys"]
            return Batch(listed[number : number + 1], json.dumps(number + 1), lambda index: str(listed[number]))
        keys = get_rest(self.table, shard)
        while True:
            end = self.table.find_window_end(keys, pacer.window) if self.table.has_windows else None
            reading = self.table.read_keys(keys if end is None else KeyRange(keys.after, end), 1, lock=False)
            if reading.rows or end is None:
                break
            keys = KeyRange(end, keys.upto)
        encoded = [self.table.codec.encode(key) for key in reading.rows]
        return Batch(reading.rows, encoded[0] if encoded else None, lambda index: encoded[index])

    def _fetch_listed(self, shard: MigrationShard, listed: list[str]) -> Batch:
        number = 0 if shard.cursor is None else json.loads(shard.cursor)
        if number >= len(listed):
            return Batch([], None, json.dumps)
        return self._make_batch(self._read_listed([self.table.codec.decode(listed[number])]), json.dumps(number + 1))

    def _make_batch(self, rows: list[Any], cursor: str | None) -> Batch:
        keys = [self._get_key(row) for row in rows]  # now, because an operation may give an object another one
        return Batch(rows, cursor, lambda index: self.table.codec.encode(keys[index]))

    def _get_key(self, row: Any) -> Any:
        return row.pk

    def _read(self, keys: KeyRange, limit: int, *, is_counted: bool) -> Reading:
        return self.table.read_objects(keys, limit, lock=self._locks, is_counted=is_counted)

    def _read_listed(self, values: list[Any]) -> list[Any]:
        return self.table.read_listed(values, lock=self._locks)


class MapperProcessor(QuerysetProcessor):
    """One call for each object; with ``update_fields`` the engine writes."""

    migration: MapperMigration

    def __post_init__(self) -> None:
        super().__post_init__()
        model = self.table.queryset.model
        self.fields = get_fields(model, self.migration.update_fields, self.migration.key)
        if self.fields:
            self._load_fields()
        if self.fields and self.table.database.max_parameters is not None:
            column_count = len(get_key_fields(model)) + len(self.fields)
            self.largest_size = min(self.largest_size, self.table.database.max_parameters // column_count)

    def _load_fields(self) -> None:
        """Read the fields that are written, and the keys of their tables, which Django may guess otherwise."""
        loading, is_deferred = self.table.queryset.query.deferred_loading
        names_by_column = {field.attname: field.name for field in self.table.queryset.model._meta.concrete_fields}
        names = {names_by_column.get(name, name) for name in loading}
        tables = {field.model for field in self.fields}
        keys = {key.name for table in tables for key in get_key_fields(table)}
        needed = keys | {field.name for field in self.fields}
        if names and is_deferred and needed & names:
            self.table.queryset = self.table.queryset.defer(None).defer(*names - needed)
        elif names and not is_deferred:
            self.table.queryset = self.table.queryset.only(*names, *needed)

    @property
    def engine_writes(self) -> bool:
        """Whether the author names the fields to write."""
        return bool(self.fields)

    def fetch(self, shard: MigrationShard, pacer: Pacer, limit: int, *, lock: bool = False) -> Batch:
        """Read the next objects, and remember the database's state before."""
        version = None if lock else self.table.database.data_version()
        batch = super().fetch(shard, pacer, limit, lock=lock)
        batch.version = version
        return batch

    def operate(self, batch: Batch) -> None:
        """Call the operation for each object; a pause ends the batch between two of them."""
        if self.fields:
            batch.snapshot = Snapshot(batch.objects, self.fields, is_locked=batch.is_locked)
        # What writes belongs into the transaction that moves the cursor, if it may be called there.
        traces = Traces(self.work_alias, refuses=batch.callbacks is not None and self.is_transactional)
        with traces.watch():
            # A copy, because the author's code may sort it or take objects out, and ours goes with the snapshot.
            call(self.migration, "prepare", list(batch.objects), self.db_alias)
            self._operate_each(batch, traces)

    def _operate_each(self, batch: Batch, traces: Traces) -> None:
        batch.worked = 0
        for obj in batch.objects:
            traces.begin()
            callbacks_count = 0 if batch.callbacks is None else len(batch.callbacks)
            try:
                call(self.migration, "operation", obj, self.db_alias)
            except RetryLater as rest:
                if batch.snapshot is None or batch.worked == 0:
                    raise
                if batch.callbacks is not None:
                    batch.callbacks.cut(callbacks_count)
                elif traces.are_left:  # the batch is rolled back, and worked again up to this object
                    raise
                batch.rest = rest  # nothing of this object is written: what came before it is committed first
                batch.cut(batch.worked)
                return
            batch.worked += 1
            if batch.worked < len(batch.objects) and self.should_stop():
                batch.cut(batch.worked)
                return

    def find_stale(self, batch: Batch) -> bool:
        """Compare the rows with what was loaded, where they are not locked."""
        if batch.snapshot is None or batch.is_locked or self.migration.on_conflict == "overwrite":
            return False
        if batch.version is not None and batch.version == self.table.database.data_version():
            return False
        return bool(batch.snapshot.find_stale(batch.objects, self.work_alias))

    def write(self, batch: Batch, shard: MigrationShard) -> Written:
        """Write the changed objects, and count those that the queryset still finds."""
        if batch.snapshot is None:
            return Written()
        prepare_related(batch.objects, self.fields)
        changed = batch.snapshot.find_changed(batch.objects)
        self.table.database.write_objects(batch.objects if self.migration.write_unchanged else changed, self.fields)
        return Written(len(changed), self.count_left(batch, shard) if self.can_operate_in_transaction else 0)

    def count_left(self, batch: Batch, shard: MigrationShard) -> int:
        """Count the objects that the queryset still finds after their visit, while the shard knows of none."""
        is_of_use = self.until_empty and self.migration.until_empty is None and not shard.left_matching
        if batch.snapshot is None or not batch.objects or not is_of_use:
            return 0
        return self.table.count_matching([obj.pk for obj in batch.objects])


class BatchProcessor(QuerysetProcessor):
    """One call with some thousand rows as a queryset."""

    migration: BatchMigration

    def __post_init__(self) -> None:
        super().__post_init__()
        self.largest_size = self.cap_size(LARGEST_SIZE)  # of keys, which are small

    def operate(self, batch: Batch) -> None:
        """Call the operation with a queryset of just the batch's rows."""
        call(self.migration, "operation", self.table.select_batch(list(batch.objects)), self.db_alias)

    def _get_key(self, row: Any) -> Any:
        return row

    def _read(self, keys: KeyRange, limit: int, *, is_counted: bool) -> Reading:
        return self.table.read_keys(keys, limit, lock=self._locks, is_counted=is_counted)

    def _read_listed(self, values: list[Any]) -> list[Any]:
        return [row.pk for row in self.table.read_listed(values, lock=self._locks)]
