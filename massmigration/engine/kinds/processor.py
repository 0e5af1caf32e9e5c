"""How the batches of a shard are worked: what the engine asks of every kind is to read one, work it and write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db import connections

from massmigration.conf import conf
from massmigration.databases.transactions import is_document_store
from massmigration.engine.callbacks import HeldCallbacks
from massmigration.engine.growth import Extension, RowsAhead
from massmigration.engine.leaving import Rest
from massmigration.engine.pacing import LARGEST_LOADED, Pacer
from massmigration.engine.snapshots import Snapshot
from massmigration.exceptions import RetryLater
from massmigration.models import MigrationShard
from massmigration.recorder.conditional import DOCUMENT_LIMIT


@dataclass
class Batch:
    """The objects handled in one transaction.

    Attributes:
        objects: Model instances, primary keys or items.
        cursor: Where the shard stands once the batch is done, encoded; None if nothing is left to do.
        keys: The encoded key of an object by its index.
        snapshot: The values that the objects were loaded with.
        version: How the database stood when they were loaded, if it tells.
        worked: For how many objects the operation has returned; None if it is called for all of them at once.
        extension: How far the last range goes, if it is that one's batch.
        rest: What the operation raised to rest the shard once what came before is committed.
        callbacks: What the operation registered for after the commit; None if it is called in the transaction.
    """

    objects: list[Any]
    cursor: str | None
    keys: Callable[[int], str]
    snapshot: Snapshot | None = None
    version: Any = None
    worked: int | None = None
    rest: RetryLater | Rest | None = None
    callbacks: HeldCallbacks | None = None
    extension: Extension | None = None

    def cut(self, count: int) -> None:
        """Keep the first ``count`` objects only: the others are the next batch's."""
        if count < len(self.objects):
            self.cursor = self.keys(count - 1)
            self.objects = self.objects[:count]


@dataclass
class Written:
    """What a batch did: objects changed (None if unknown), and how many of them the queryset still finds."""

    changed: int | None = None
    left_matching: int = 0


@dataclass
class Processor:
    """Works the batches of one shard.

    Attributes:
        migration: The definition.
        db_alias: The database that is migrated.
        should_stop: Asked between two objects: whether to end the batch early.
        work_alias: The database that the operation reads and writes.
        reads_inside: Whether a batch is read in the transaction that writes it.
        operates_inside: Whether the operation is called in that transaction.
        batch_seconds: How long a batch should take.
        largest_size: So many objects at most, unless the author says more.
        gap_seconds: How long to leave the database alone between two batches.
        interval_seconds: How long at least from one batch to the next, since each writes the shard.
        is_document: Whether one of the databases is a document store, where no author's code may run in a transaction.
        isolates: Whether an object that raised is tried once more.
        insists: Set for a batch whose rows somebody kept changing: it is read, locked and worked in one transaction.
    """

    migration: Any
    db_alias: str
    should_stop: Callable[[], bool] = lambda: False
    work_alias: str = field(init=False)
    reads_inside: bool = field(default=False, init=False)
    operates_inside: bool = field(default=True, init=False)
    batch_seconds: float = field(init=False)
    largest_size: int = field(default=LARGEST_LOADED, init=False)
    gap_seconds: float = field(default=0.0, init=False)
    interval_seconds: float = field(default=0.0, init=False)
    is_document: bool = field(init=False)
    isolates: bool = field(default=True, init=False)
    insists: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.work_alias = getattr(self.migration, "other_database", None) or self.db_alias
        self.batch_seconds = conf.batch_seconds
        self.is_document = is_document_store(self.db_alias) or is_document_store(self.work_alias)
        if self.is_document:
            # One entity takes about one write in a second (https://cloud.google.com/datastore/docs/concepts/limits).
            self.operates_inside = False
            self.batch_seconds = self.interval_seconds = 2 * conf.batch_seconds
            self.largest_size = DOCUMENT_LIMIT
        elif not self.migration.atomic:
            self.operates_inside = False
        else:
            self.limit_writing()

    def limit_writing(self) -> None:
        """On SQLite, where who writes keeps all others from it: short batches, with gaps in which a pause gets in."""
        if connections[self.db_alias].vendor == "sqlite":
            self.batch_seconds = min(self.batch_seconds, 0.1)
            self.gap_seconds = 0.02

    @property
    def saves_itself(self) -> bool:
        """Whether the operation's changes stay when the batch's transaction is rolled back."""
        return not self.operates_inside

    def make_pacer(self, shard: MigrationShard) -> Pacer:
        """Return the shard's pacer, which begins where the last worker's ended."""
        return Pacer(self.batch_seconds, self.migration.batch_size, shard.batch_size, shard.rate, self.largest_size)

    def fetch(self, shard: MigrationShard, pacer: Pacer, limit: int) -> Batch:
        """Read the next batch of at most ``limit`` objects behind the shard's cursor."""
        raise NotImplementedError

    def peek(self, shard: MigrationShard, pacer: Pacer) -> Batch:
        """Find the next object behind the shard's cursor, for its key; it may be what kills those who read it."""
        return self.fetch(shard, pacer, 1)

    def operate(self, batch: Batch) -> None:
        """Call the author's operation."""
        raise NotImplementedError

    def find_stale(self, batch: Batch) -> bool:
        """Return whether somebody changed a row of the batch since it was read; such rows are read again."""
        return False

    def write(self, batch: Batch, shard: MigrationShard) -> Written:
        """Write what the operation left to the engine."""
        return Written()

    def count_left(self, batch: Batch, shard: MigrationShard) -> int:
        """Return how many objects of a batch that was written the queryset still finds, if anybody wants to know."""
        return 0

    def settle(self, shard: MigrationShard, ahead: RowsAhead) -> Extension:
        """Return how the last range goes on whose extensions do not get smaller, or raise FinishRefused."""
        raise NotImplementedError

    def note_commit(self, batch: Batch) -> None:
        """Learn that a batch is done."""

    def note_error(self) -> None:
        """Learn that a batch was rolled back, so that it is read anew."""
