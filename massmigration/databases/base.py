"""What the engine asks of a database: its capabilities are attributes, and what it does its own way are methods.

There is one object for each alias, as Django has ``connection.features`` and ``connection.ops`` for each connection.
It holds no connection: each thread uses its own.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

from django.db import connections, transaction
from django.db.models import Field, Model, QuerySet

from massmigration.databases.counting import COUNT_SECONDS, Count
from massmigration.databases.keyfilters import get_key_fields
from massmigration.databases.keys import KeyCodec, check_reference
from massmigration.databases.ranges import KeyRange
from massmigration.exceptions import DatabaseLocked

Result = TypeVar("Result")
Item = TypeVar("Item")

LOCK_PATIENCE_SECONDS: Final = 30.0
"""How long a short write of ours is repeated while another process holds a lock, such as SQLite's only write lock."""


class BaseDatabase(ABC):
    """One database that migrations run on.

    Args:
        alias: Its name in ``DATABASES``.
    """

    # How many rows may one transaction write? None: any number.
    write_limit: int | None = None

    # How many seconds have to lie between two writes of the same row?
    write_interval: float = 0.0

    # How long may the locks of another client last, and how long should one wait at most between two tries?
    lock_seconds: float = LOCK_PATIENCE_SECONDS
    longest_wait_seconds: float = 0.05

    # How many parameters may one statement have? None: any number.
    max_parameters: int | None = None

    # Does a connection that writes keep all other connections from writing?
    has_single_writer: bool = False

    # Does a row that one transaction has read keep another transaction from writing it?
    reads_block_writes: bool = False

    # Does a query find what was written in the same transaction before?
    can_read_own_writes: bool = True

    # May the author's operation run in the transaction that writes its batch?
    can_operate_in_transaction: bool = True

    # Does an error within a nested block leave the transaction around it usable?
    has_savepoints: bool = True

    # Can a query filter by any columns, whether they have an index or not?
    has_free_filters: bool = True

    # Can one query count and add up the rows of several groups?
    has_aggregates: bool = True

    # Is a row always read as a whole, so that it costs more to read a part of it or to join another table?
    reads_whole_rows: bool = False

    # Is it cheap to skip rows in the order of their keys (OFFSET)?
    can_skip_rows: bool = True

    # How many keys may a query list whose rows come in order? None: any number.
    listed_keys_limit: int | None = None

    def __init__(self, alias: str) -> None:
        self.alias = alias

    @property
    def connection(self) -> Any:
        """Django's connection of this thread."""
        return connections[self.alias]

    @property
    def has_row_locks(self) -> bool:
        """Can rows be locked when they are read (SELECT … FOR UPDATE)?"""
        return False

    @property
    def is_in_memory(self) -> bool:
        """Does the database live in this process's memory, so that no other process can see it?"""
        return False

    # Errors

    @abstractmethod
    def is_transient(self, error: BaseException) -> bool:
        """Return whether an error of this database says that the same work may succeed a moment later."""

    @abstractmethod
    def is_contention(self, error: BaseException) -> bool:
        """Return whether a transaction was rolled back because of another one, so that it may be repeated as it was."""

    def is_timed_out(self, error: BaseException) -> bool:
        """Return whether the database gave up a statement that took too long, or that a person cancelled.

        It may have been slow by itself or have waited for a lock, so this says nothing about the next try.
        """
        return False

    def is_in_the_way(self, error: BaseException) -> bool:
        """Return whether a short write failed because of other writers, so that it is worth repeating."""
        return self.is_contention(error) or self.is_timed_out(error)

    # Transactions

    def write_transaction(self) -> AbstractContextManager[None]:
        """Open a transaction that is going to write.

        Within one that is open already, such as the one around an author's test, it is a savepoint.
        """
        atomic: AbstractContextManager[None] = transaction.atomic(using=self.alias)
        return atomic if self.connection.in_atomic_block else self.begin_writing(atomic)

    def begin_writing(self, atomic: AbstractContextManager[None]) -> AbstractContextManager[None]:
        """Return Django's outermost transaction as one that is going to write."""
        return atomic

    def run_write(self, write: Callable[[], Result], *, patience: float | None = None) -> Result:
        """Call ``write`` in a write transaction, and repeat it while other writers are in the way.

        Args:
            write: Does the writing; it may be called more than once, each time after a rollback.
            patience: For how many seconds to repeat; None for as long as the database's locks may last.

        Returns:
            What ``write`` returned.

        Raises:
            DatabaseLocked: Another process kept the lock all the time.
        """
        patience = self.lock_seconds if patience is None else patience
        deadline, delay = time.monotonic() + patience, 0.05
        while True:
            try:
                with self.write_transaction():
                    return write()
            except Exception as error:
                if not self.is_in_the_way(error) or self.connection.in_atomic_block:
                    raise
                if time.monotonic() > deadline:
                    raise DatabaseLocked(
                        f"Database '{self.alias}' was kept locked by another writer for {patience:g} seconds, so "
                        "nothing was changed. Try again when its transaction has ended.",
                        db_alias=self.alias,
                    ) from error
            time.sleep(random.uniform(delay / 10, delay))
            delay = min(delay * 1.5, self.longest_wait_seconds)

    def limit_idling(self, seconds: float) -> None:  # noqa: B027 - most databases have no such limit
        """Let the database end the open transaction, and free its locks, if the client does nothing for this long."""

    # Time

    def now(self) -> float:
        """Return the seconds since 1970 (UTC) by the clock that leases are measured with."""
        return time.time()

    def read_clock(self) -> None:  # noqa: B027 - most databases have no clock that is worth asking
        """Compare the database's clock with this machine's, if leases are measured with the database's."""

    # Conditional writes

    @abstractmethod
    def update_if(self, rows: QuerySet[Any], expected: Mapping[str, Any], fields: Mapping[str, Any]) -> int:
        """Set fields of those rows that are as expected, in one transaction.

        Args:
            rows: Chosen by primary keys or, as long as none of them was written in this transaction, by the field that
                carries the model's index.
            expected: Field lookups as for ``filter()``: a plain name, ``__in`` or ``__lt``.
            fields: What to set; ``F`` expressions are fine.

        Returns:
            How many rows were changed.
        """

    @abstractmethod
    def delete_if(self, rows: QuerySet[Any], expected: Mapping[str, Any]) -> int:
        """Delete those rows that are as expected; arguments and result as for ``update_if``."""

    @abstractmethod
    def insert_missing(self, objects: Sequence[Model]) -> None:
        """Store objects of one model; those whose keys exist already are left as they are."""

    def page_writes(self, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """Yield the items in lists that one transaction may write."""
        size = self.write_limit or max(len(items), 1)
        for start in range(0, len(items), size):
            yield items[start : start + size]

    def has_table(self, name: str) -> bool:
        """Return whether a table exists."""
        return name in self.connection.introspection.table_names()

    # Numbers of rows, and ranges of keys

    @abstractmethod
    def count(self, queryset: QuerySet[Any], seconds: float = COUNT_SECONDS) -> Count:
        """Count the distinct rows of a queryset, or estimate them if that takes too long.

        Args:
            queryset: A queryset of model instances.
            seconds: When to give up.
        """

    @abstractmethod
    def count_range(self, queryset: QuerySet[Any], keys: KeyRange, seconds: float) -> Count:
        """Count the rows of a queryset in a range of keys; arguments as for ``count``."""

    @abstractmethod
    def find_bounds(self, queryset: QuerySet[Any], most: int, rows_per_range: int | None) -> list[Any]:
        """Return rising keys that divide a table for several workers; they need not exist.

        Args:
            queryset: The author's.
            most: The maximum number of ranges.
            rows_per_range: How many rows are worth a range; None if ``most`` ranges are wanted anyway.
        """

    @abstractmethod
    def find_middle(
        self, queryset: QuerySet[Any], ranges: Sequence[KeyRange], least_rows: int
    ) -> tuple[int, Any] | None:
        """Return which of some ranges is the largest, and a key that cuts it; None if none is worth cutting.

        Args:
            queryset: The author's.
            ranges: What is left of ranges.
            least_rows: How many rows are worth cutting.
        """

    @abstractmethod
    def find_largest(self, queryset: QuerySet[Any], after: Any) -> tuple[bool, Any]:
        """Return whether the largest key can be found, and the key; None if no row lies after ``after``."""

    # Rows

    def check_key(self, codec: KeyCodec) -> None:
        """Raise InvalidDefinition if this database does not give a model's keys back exactly."""
        check_reference(codec.model, self.alias)

    def check_readable(self, queryset: QuerySet[Any], key: str) -> None:  # noqa: B027 - on SQL there is no question
        """Raise InvalidDefinition if the queryset cannot be read in the order of its keys.

        Args:
            queryset: The author's.
            key: The migration's key, for the message.
        """

    def chunk_keys(self, model: type[Model], keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Yield keys of a model in lists that are not too long for one statement."""
        size = len(keys) or 1
        if self.max_parameters is not None:  # with room for the queryset's own
            size = self.max_parameters // len(get_key_fields(model)) - 100
        for start in range(0, len(keys), size):
            yield keys[start : start + size]

    def data_version(self) -> Any:
        """Return a value that changes as soon as another connection commits; None if there is none for free."""
        return None

    @abstractmethod
    def write_objects(self, objects: Sequence[Model], fields: Sequence[Field[Any, Any]]) -> None:
        """Write ``fields`` of the objects, in as few statements as possible.

        Args:
            objects: Instances of one model, with distinct primary keys, after ``prepare_related``.
            fields: What to write; fields of a multi-table parent are written to the parent's table.
        """
