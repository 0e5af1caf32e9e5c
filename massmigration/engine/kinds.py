"""Maps the class of a definition to its behaviour: what a batch is, how it is read, worked and written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from django.db import connections

from massmigration.conf import conf
from massmigration.database import has_row_locks
from massmigration.definitions.base import BaseMigration, QuerysetMigration, WorkedMigration
from massmigration.definitions.batch import BatchMigration
from massmigration.definitions.custom import CustomMigration
from massmigration.definitions.mapper import MapperMigration
from massmigration.definitions.simple import SimpleMigration
from massmigration.engine.keys import check_key
from massmigration.engine.pacing import Pacer
from massmigration.engine.querysets import KeyRange, Reading, Table, check_queryset, filters_on
from massmigration.engine.writeback import Snapshot, get_fields, write_objects
from massmigration.exceptions import InvalidDefinition
from massmigration.models import MigrationShard


@dataclass
class Batch:
    """The objects handled in one transaction.

    Attributes:
        objects: Model instances, primary keys or items.
        cursor: Where the shard stands once the batch is done, encoded; None if nothing is left to do.
        keys: The encoded key of an object by its index.
        snapshot: The values that the objects were loaded with.
        is_cut: Whether the operation was stopped before the batch's end.
    """

    objects: list[Any]
    cursor: str | None
    keys: Callable[[int], str]
    snapshot: Snapshot | None = None
    is_cut: bool = False

    def cut(self, count: int) -> None:
        """Keep the first ``count`` objects only: the others are the next batch's."""
        if count < len(self.objects):
            self.cursor = self.keys(count - 1)
            self.objects = self.objects[:count]
            self.is_cut = True


@dataclass
class Written:
    """What a batch did: objects changed (None if unknown), and how many of them the queryset still finds."""

    changed: int | None = None
    left_matching: int = 0


@dataclass
class Kind:
    """The behaviour of one migration on one shard.

    Attributes:
        migration: The definition.
        db_alias: The database that is migrated.
        should_stop: Asked between two objects: whether to end the batch early.
        work_alias: The database that the operation reads and writes.
        reads_inside: Whether a batch is read in the transaction that writes it.
        operates_inside: Whether the operation is called in that transaction.
        batch_seconds: How long a batch should take.
        gap_seconds: How long to leave the database alone between two batches.
        isolates: Whether an object that raised is tried once more.
    """

    migration: Any
    db_alias: str
    should_stop: Callable[[], bool] = lambda: False
    work_alias: str = field(init=False)
    reads_inside: bool = field(default=False, init=False)
    operates_inside: bool = field(default=True, init=False)
    batch_seconds: float = field(init=False)
    gap_seconds: float = field(default=0.0, init=False)
    isolates: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self.work_alias = self.db_alias
        self.batch_seconds = conf.batch_seconds
        if not self.migration.atomic:
            self.operates_inside = False
        elif connections[self.db_alias].vendor == "sqlite":
            # Whoever writes keeps all others from writing: short batches, with gaps in which a pause gets in.
            self.batch_seconds = min(self.batch_seconds, 0.1)
            self.gap_seconds = 0.02

    def make_pacer(self, shard: MigrationShard) -> Pacer:
        """Return the shard's pacer, which begins where the last worker's ended."""
        return Pacer(self.batch_seconds, self.migration.batch_size, shard.batch_size)

    def fetch(self, shard: MigrationShard, pacer: Pacer, limit: int) -> Batch:
        """Read the next batch of at most ``limit`` objects behind the shard's cursor."""
        raise NotImplementedError

    def operate(self, batch: Batch) -> None:
        """Call the author's operation."""
        raise NotImplementedError

    def find_stale(self, batch: Batch) -> bool:
        """Return whether somebody changed a row of the batch since it was read; such rows are read again."""
        return False

    def write(self, batch: Batch, shard: MigrationShard) -> Written:
        """Write what the operation left to the engine."""
        return Written()

    def note_commit(self, batch: Batch) -> None:
        """Learn that a batch is done."""

    def note_error(self) -> None:
        """Learn that a batch was rolled back, so that it is read anew."""


class SimpleKind(Kind):
    """One call, one transaction, one object: the whole operation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gap_seconds = 0.0
        self.isolates = False

    def fetch(self, shard: MigrationShard, pacer: Pacer, limit: int) -> Batch:
        if shard.cursor is not None:
            return Batch([], None, json.dumps)
        return Batch([self.migration], json.dumps(1), lambda index: json.dumps("operation"))

    def operate(self, batch: Batch) -> None:
        self.migration.operation(self.db_alias)


class QuerysetKind(Kind):
    """What goes through a queryset in the order of its keys, window by window."""

    migration: QuerysetMigration

    def __post_init__(self) -> None:
        super().__post_init__()
        self.work_alias = self.migration.other_database or self.db_alias
        self.table = get_table(self.migration, self.db_alias)
        self.locks = self.operates_inside and self.migration.lock_rows and has_row_locks(self.work_alias)
        self.reads_inside = self.operates_inside
        self.until_empty = is_until_empty(self.migration, self.table)

    def fetch(self, shard: MigrationShard, pacer: Pacer, limit: int) -> Batch:
        if shard.payload is not None:
            return self._fetch_listed(shard)
        codec, started_at = self.table.codec, time.monotonic()
        after = shard.cursor if shard.cursor is not None else shard.lower
        keys = KeyRange(
            None if after is None else codec.decode(after),
            None if shard.upper is None else codec.decode(shard.upper),
        )
        while True:
            began_at = time.monotonic()
            end = None if self.table.is_whole else self.table.find_window_end(keys, max(pacer.window, limit))
            reading = self._read(keys if end is None else KeyRange(keys.after, end), limit)
            now = time.monotonic()
            if not self.table.is_whole:
                pacer.note_window(reading.is_full, now - began_at)
            if reading.rows or end is None or now - started_at > self.batch_seconds:
                break
            keys = KeyRange(end if not reading.is_full else reading.last, keys.upto)
        last = reading.last if reading.is_full or end is None else end
        cursor = None if last is None else codec.encode(last)
        return self._make_batch(reading.rows, cursor)

    def _fetch_listed(self, shard: MigrationShard) -> Batch:
        number = 0 if shard.cursor is None else json.loads(shard.cursor)
        listed = shard.payload["keys"]
        if number >= len(listed):
            return Batch([], None, json.dumps)
        rows = self._read_listed([self.table.codec.decode(listed[number])])
        return self._make_batch(rows, json.dumps(number + 1))

    def _make_batch(self, rows: list[Any], cursor: str | None) -> Batch:
        return Batch(rows, cursor, lambda index: self.table.codec.encode(self._get_key(rows[index])))

    def _get_key(self, row: Any) -> Any:
        return row.pk

    def _read(self, keys: KeyRange, limit: int) -> Reading:
        return self.table.read_objects(keys, limit, lock=self.locks)

    def _read_listed(self, values: list[Any]) -> list[Any]:
        return self.table.read_listed(values, lock=self.locks)


class MapperKind(QuerysetKind):
    """One call for each object; with ``update_fields`` the engine writes."""

    migration: MapperMigration

    def __post_init__(self) -> None:
        super().__post_init__()
        model = self.table.queryset.model
        self.fields = get_fields(model, self.migration.update_fields, self.migration.key)
        if self.fields:
            self._load_fields()
        # With the fields declared the operation needs no transaction: rows are locked, or compared when written.
        if self.fields and self.operates_inside and not self.locks:
            self.reads_inside = self.operates_inside = False
            self.batch_seconds, self.gap_seconds = conf.batch_seconds, 0.0

    def _load_fields(self) -> None:
        names, is_deferred = self.table.queryset.query.deferred_loading
        fields = {field.name for field in self.fields}
        if names and is_deferred and fields & set(names):
            rest = set(names) - fields
            self.table.queryset = self.table.queryset.defer(None).defer(*rest)
        elif names and not is_deferred:
            self.table.queryset = self.table.queryset.only(*names, *fields)

    def operate(self, batch: Batch) -> None:
        batch.snapshot = Snapshot(batch.objects, self.fields) if self.fields else None
        self._work(batch, can_stop=True)

    def _work(self, batch: Batch, *, can_stop: bool) -> None:
        self.migration.prepare(batch.objects, self.db_alias)
        for number, obj in enumerate(batch.objects, start=1):
            self.migration.operation(obj, self.db_alias)
            if can_stop and number < len(batch.objects) and self.should_stop():
                batch.cut(number)
                return

    def find_stale(self, batch: Batch) -> bool:
        if batch.snapshot is None or self.locks or self.migration.on_conflict == "overwrite":
            return False
        return bool(batch.snapshot.find_stale(batch.objects, self.work_alias))

    def write(self, batch: Batch, shard: MigrationShard) -> Written:
        if batch.snapshot is None:
            return Written()
        changed = batch.snapshot.find_changed(batch.objects)
        write_objects(
            batch.objects if self.migration.write_unchanged else changed, self.fields, self.work_alias
        )
        left = 0
        if self.until_empty and self.migration.until_empty is None and not shard.left_matching:
            left = self.table.queryset.filter(pk__in=[obj.pk for obj in batch.objects]).count()
        return Written(len(changed), left)


class BatchKind(QuerysetKind):
    """One call with some thousand rows as a queryset."""

    migration: BatchMigration

    def operate(self, batch: Batch) -> None:
        rows = self.table.queryset.filter(pk__in=batch.objects)
        self.migration.operation(rows, self.db_alias)

    def _get_key(self, row: Any) -> Any:
        return row

    def _read(self, keys: KeyRange, limit: int) -> Reading:
        return self.table.read_keys(keys, limit, lock=self.locks)

    def _read_listed(self, values: list[Any]) -> list[Any]:
        return [row.pk for row in self.table.read_listed(values, lock=self.locks)]


class CustomKind(Kind):
    """Items of anything, pulled from the author's generator before the transaction begins."""

    migration: CustomMigration

    def __post_init__(self) -> None:
        super().__post_init__()
        self._items: Iterator[tuple[Any, Any]] | None = None
        self._pulled: list[tuple[str, Any]] = []

    def fetch(self, shard: MigrationShard, pacer: Pacer, limit: int) -> Batch:
        if self._items is None:
            self._items = self._get_items(shard)
        while len(self._pulled) < limit:
            try:
                cursor, item = next(self._items)
            except StopIteration:
                break
            self._pulled.append((json.dumps(cursor), item))
        pulled = self._pulled[:limit]
        return Batch(
            [item for _, item in pulled],
            pulled[-1][0] if pulled else None,
            lambda index: pulled[index][0],
        )

    def _get_items(self, shard: MigrationShard) -> Iterator[tuple[Any, Any]]:
        cursor = None if shard.cursor is None else json.loads(shard.cursor)
        payload = shard.payload or {}
        items = iter(self.migration.get_items(payload.get("shard"), cursor, self.db_alias))
        if "keys" not in payload:
            return items
        wanted = set(payload["keys"])
        return ((at, item) for at, item in items if json.dumps(at) in wanted)

    def operate(self, batch: Batch) -> None:
        if type(self.migration).operation_many is not CustomMigration.operation_many:
            self.migration.operation_many(batch.objects, self.db_alias)
            return
        for number, item in enumerate(batch.objects, start=1):
            self.migration.operation(item, self.db_alias)
            if number < len(batch.objects) and self.should_stop():
                batch.cut(number)
                return

    def note_commit(self, batch: Batch) -> None:
        del self._pulled[: len(batch.objects)]

    def note_error(self) -> None:
        self._pulled.clear()
        with suppress(Exception):
            getattr(self._items, "close", lambda: None)()
        self._items = None


KINDS: dict[type[WorkedMigration], type[Kind]] = {
    SimpleMigration: SimpleKind,
    MapperMigration: MapperKind,
    BatchMigration: BatchKind,
    CustomMigration: CustomKind,
}


def get_kind(migration: BaseMigration) -> type[Kind] | None:
    """Return the behaviour of a migration; None if its author does all the work in ``launch()``."""
    for definition, kind in KINDS.items():
        if isinstance(migration, definition):
            return kind
    return None


def get_table(migration: QuerysetMigration, db_alias: str) -> Table:
    """Return the rows that a migration goes through.

    Args:
        migration: The definition.
        db_alias: The database that is migrated.

    Raises:
        InvalidDefinition: The queryset or its key cannot be worked.
    """
    queryset = migration.get_queryset(db_alias)  # type: ignore[attr-defined]
    work_alias = migration.other_database or db_alias
    if work_alias not in connections:
        raise InvalidDefinition(
            f"other_database of {migration.key} is '{work_alias}', but DATABASES has no such alias. Correct it.",
            key=migration.key,
        )
    check_queryset(queryset, migration.key, work_alias)
    table = Table(queryset)
    check_key(table.codec, work_alias)
    return table


def is_until_empty(migration: QuerysetMigration, table: Table) -> bool:
    """Return whether the table is gone over again for rows that came in behind the cursors."""
    if migration.until_empty is not None:
        return migration.until_empty
    fields = getattr(migration, "update_fields", ())
    return bool(fields) and filters_on(table.queryset, set(fields))
