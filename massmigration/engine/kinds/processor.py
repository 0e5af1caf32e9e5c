"""How the batches of a shard are handled: every kind reads one, calls the operation and writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from massmigration.conf import conf
from massmigration.databases.base import BaseDatabase
from massmigration.databases.registry import get_database
from massmigration.engine.callbacks import HeldCallbacks
from massmigration.engine.growth import Extension, RowsAhead
from massmigration.engine.leaving import Rest
from massmigration.engine.pacing import LARGEST_LOADED, Pacer
from massmigration.engine.snapshots import Snapshot
from massmigration.exceptions import RetryLater
from massmigration.models import MigrationShard


@dataclass
class Batch:
    """The objects that are handled in one transaction."""

    objects: list[Any]  # Model instances, primary keys or items.
    cursor: str | None  # Where the shard stands once the batch is done, encoded; None if nothing is left to do.
    keys: Callable[[int], str]  # The encoded key of an object by its index.
    snapshot: Snapshot | None = None  # The values that the objects were loaded with.
    version: Any = None  # How the database stood when they were loaded, if it tells.
    is_locked: bool = False  # Are they rows that were locked?
    worked: int | None = None  # For how many the operation has returned; None if it is called for all at once.
    rest: RetryLater | Rest | None = None  # Raised to rest the shard once what came before is committed.
    callbacks: HeldCallbacks | None = None  # Held for after the commit; None if the operation runs in the transaction.
    extension: Extension | None = None  # How far the last range goes, if it is that one's batch.

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
    """Works the batches of one shard."""

    migration: Any
    db_alias: str  # The database that is migrated.
    should_stop: Callable[[], bool] = lambda: False  # Asked between two objects: is the batch to end early?
    work_alias: str = field(init=False)  # The database that the operation reads and writes.
    batch_seconds: float = field(init=False)  # How long a batch should take.
    largest_size: int = field(init=False)  # The maximum number of objects, unless the author says more.
    gap_seconds: float = field(default=0.0, init=False)  # How long to leave the database alone after a batch.
    interval_seconds: float = field(default=0.0, init=False)  # At least, from batch to batch: each writes the shard.
    # Can the databases that are read and written keep a transaction open while the operation runs?
    can_operate_in_transaction: bool = field(init=False)
    isolates: ClassVar[bool] = True  # Is an object that raised tried again?
    reads_rows: ClassVar[bool] = False  # Are the objects read from the database, where they can be locked?

    def __post_init__(self) -> None:
        self.work_alias = getattr(self.migration, "other_database", None) or self.db_alias
        self.batch_seconds = conf.batch_seconds
        if any(each.write_interval for each in self.databases):
            self.batch_seconds = self.interval_seconds = 2 * conf.batch_seconds
        self.largest_size = self.cap_size(LARGEST_LOADED)
        self.can_operate_in_transaction = all(each.can_operate_in_transaction for each in self.databases)

    @property
    def is_transactional(self) -> bool:
        """Whether the operation may be called in the transaction that moves the cursor."""
        return bool(self.migration.atomic) and self.can_operate_in_transaction

    @property
    def engine_writes(self) -> bool:
        """Whether the operation leaves it to the engine to write."""
        return False

    @property
    def can_lock(self) -> bool:
        """Whether the objects are rows that can be locked."""
        return self.reads_rows and get_database(self.work_alias).has_row_locks

    @property
    def wants_locks(self) -> bool:
        """Whether the rows are to be locked when they are read."""
        return False

    @property
    def databases(self) -> list[BaseDatabase]:
        """The databases that are read and written."""
        return [get_database(alias) for alias in dict.fromkeys((self.db_alias, self.work_alias))]

    def cap_size(self, size: int) -> int:
        """Return how many of at most ``size`` objects one transaction can write."""
        return min([size, *(each.write_limit for each in self.databases if each.write_limit)])

    def is_timed_out(self, error: BaseException) -> bool:
        """Return whether a database gave up a statement that took too long."""
        return any(each.is_timed_out(error) for each in self.databases)

    def limit_writing(self) -> None:
        """Keep batches short where one connection writes at a time, with gaps in which a pause gets in."""
        if get_database(self.db_alias).has_single_writer:
            self.batch_seconds = min(self.batch_seconds, 0.1)
            self.gap_seconds = 0.02

    def make_pacer(self, shard: MigrationShard) -> Pacer:
        """Return the shard's pacer, which begins where the last worker's ended."""
        return Pacer(self.batch_seconds, self.migration.batch_size, shard.batch_size, shard.rate, self.largest_size)

    def fetch(self, shard: MigrationShard, pacer: Pacer, limit: int, *, lock: bool = False) -> Batch:
        """Read the next batch of at most ``limit`` objects after the shard's cursor; lock them if they are rows."""
        raise NotImplementedError

    def peek(self, shard: MigrationShard, pacer: Pacer) -> Batch:
        """Find the key of the next object after the cursor; the object itself may be what kills its readers."""
        return self.fetch(shard, pacer, 1)

    def operate(self, batch: Batch) -> None:
        """Call the author's operation."""
        raise NotImplementedError

    def find_stale(self, batch: Batch) -> bool:
        """Return whether the site changed a row of the batch since it was read; such rows are read again."""
        return False

    def write(self, batch: Batch, shard: MigrationShard) -> Written:
        """Write what the operation left to the engine."""
        return Written()

    def count_left(self, batch: Batch, shard: MigrationShard) -> int:
        """Return how many objects of a batch that was written the queryset still finds, if that is of use."""
        return 0

    def settle(self, shard: MigrationShard, ahead: RowsAhead) -> Extension:
        """Return how the last range continues whose extensions do not get smaller, or raise FinishRefused."""
        raise NotImplementedError

    def learn_commit(self, batch: Batch) -> None:
        """Learn that a batch is done."""

    def learn_error(self) -> None:
        """Learn that a batch was rolled back, so that it is read again."""
