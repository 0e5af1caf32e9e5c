"""Three ways from the objects of a batch to the commit that moves the cursor, and the choice among them.

In the transaction: read, operate and write in the one that moves the cursor. Compared before writing: operate first,
and write only if the site has changed none of the rows meanwhile. Saving by itself: what the operation saves stays, and
then the cursor moves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

from massmigration.conf import conf
from massmigration.databases.registry import get_database
from massmigration.databases.transactions import write_transaction
from massmigration.engine.callbacks import HeldCallbacks
from massmigration.engine.failures import check_transaction
from massmigration.engine.kinds.processor import Batch, Processor, Written
from massmigration.exceptions import RetryLater


class RowsChanged(Exception):
    """The site changed a row between reading and writing."""


class Runner(Protocol):
    """What a strategy asks of ``BatchRunner``."""

    def fetch(self, limit: int, *, lock: bool = False) -> Batch:
        """Read the next batch."""

    def operate(self, batch: Batch) -> None:
        """Call the author's operation."""

    def write(self, batch: Batch) -> dict[str, Any]:
        """Write a batch within its transaction, and return the shard's new values."""

    def get_progress(self, batch: Batch, written: Written) -> dict[str, Any]:
        """Return the shard's new values."""

    def advance(self, fields: dict[str, Any], *, is_written: bool) -> None:
        """Take over the shard's new values after the commit."""

    def count_left(self, batch: Batch) -> None:
        """Count after the commit which objects the queryset still finds."""


class Strategy(ABC):
    """How the batches of a shard are worked."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor

    @abstractmethod
    def work(self, runner: Runner, limit: int) -> Batch:
        """Work one batch of at most ``limit`` objects; nothing is done if its cursor is None.

        Raises:
            RowsChanged: Nothing was written, and the batch is to be read again.
            WritesByItself: Nothing was written, and the batch is to be worked ``within_transaction``.
        """

    def insist(self) -> Strategy:
        """Return the strategy for a batch whose rows the site keeps changing."""
        return self

    def within_transaction(self) -> Strategy:
        """Return the strategy for an operation that writes although the engine was to write."""
        self.processor.limit_writing()
        return InTransaction(self.processor, locks=self.processor.can_lock)


class InTransaction(Strategy):
    """The operation is called in the transaction that moves the cursor, where rows can be locked when they are read."""

    def __init__(self, processor: Processor, *, locks: bool) -> None:
        super().__init__(processor)
        self._locks = locks

    def work(self, runner: Runner, limit: int) -> Batch:
        """Read rows within the transaction, and other objects before it."""
        processor, batch = self.processor, None
        if not processor.reads_rows:
            batch = runner.fetch(limit)
            if batch.cursor is None:
                return batch
        with write_transaction(processor.work_alias):
            if processor.isolates:
                get_database(processor.work_alias).limit_idling(conf.hang_seconds)
            if batch is None:
                batch = runner.fetch(limit, lock=self._locks)
                if batch.cursor is None:
                    return batch
            runner.operate(batch)
            check_transaction(processor.work_alias)
            fields = runner.write(batch)
        runner.advance(fields, is_written=processor.work_alias == processor.db_alias)
        return batch


class ComparedBeforeWriting(Strategy):
    """The operation is called before the transaction, in which the rows are compared with what was loaded."""

    def work(self, runner: Runner, limit: int) -> Batch:
        """Read and operate; what the operation wants to have done after the commit waits for it."""
        processor, batch = self.processor, runner.fetch(limit)
        if batch.cursor is None:
            return batch
        batch.callbacks = HeldCallbacks(processor.work_alias)
        with batch.callbacks.hold():
            runner.operate(batch)
        with write_transaction(processor.work_alias):
            if batch.objects and processor.find_stale(batch):
                raise RowsChanged
            fields = runner.write(batch)
        runner.advance(fields, is_written=processor.work_alias == processor.db_alias)
        if not processor.can_operate_in_transaction:
            runner.count_left(batch)
        return batch

    def insist(self) -> Strategy:
        """Read, lock and operate in one transaction, if the databases allow that."""
        processor = self.processor
        return InTransaction(processor, locks=processor.can_lock) if processor.can_operate_in_transaction else self


class SavingByItself(Strategy):
    """The operation saves, and what it has saved stays, whatever happens to the batch."""

    def work(self, runner: Runner, limit: int) -> Batch:
        """Read, operate, and move the cursor after what is saved."""
        batch = runner.fetch(limit)
        if batch.cursor is None:
            return batch
        try:
            runner.operate(batch)
        except Exception as error:
            if not batch.worked:
                raise
            # What came before is saved, and would be done again. The object that raised is the next batch's first.
            batch.cut(batch.worked)
            if isinstance(error, RetryLater):
                batch.rest = error
        runner.advance(runner.get_progress(batch, Written()), is_written=False)
        return batch


def choose_strategy(processor: Processor) -> Strategy:
    """Return the strategy that a processor's batches are worked with.

    Where the engine writes, the operation needs no transaction: rows are locked, or compared when they are written.
    """
    if processor.engine_writes and not (processor.is_transactional and processor.wants_locks):
        return ComparedBeforeWriting(processor)
    if not processor.is_transactional:
        return SavingByItself(processor)
    processor.limit_writing()
    return InTransaction(processor, locks=processor.wants_locks)
