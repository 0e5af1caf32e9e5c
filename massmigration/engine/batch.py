"""Works the batches of a shard one after the other, and decides what follows an error."""

from __future__ import annotations

import logging
import random
import time
from typing import Any

from django.db import connections
from django.utils import timezone

from massmigration import logs, recorder
from massmigration.conf import conf
from massmigration.databases import clock
from massmigration.databases.transactions import run_write
from massmigration.engine.callbacks import WritesByItself
from massmigration.engine.failures import is_worth_repeating
from massmigration.engine.growth import RowsAhead, forgive
from massmigration.engine.isolation import Isolation, ObjectFailed
from massmigration.engine.kinds.processor import Batch, Processor, Written
from massmigration.engine.leases import read_stored
from massmigration.engine.leaving import Rest
from massmigration.engine.pacing import Pacer
from massmigration.engine.refusals import FinishRefused
from massmigration.engine.slice_log import get_fields, log_repeat
from massmigration.engine.strategies import RowsChanged, choose_strategy
from massmigration.exceptions import FenceLost, InvalidDefinition, RetryLater
from massmigration.models import MigrationShard

logger = logging.getLogger("massmigration")

REVISITS: int = 3
"""How often rows that the site keeps changing are visited again before they are locked out of its reach."""


class BatchRunner:
    """Works batches of the shard that this worker holds, until it is stopped."""

    def __init__(self, processor: Processor, shard: MigrationShard) -> None:
        self.processor = processor
        self.shard = shard
        self.db_alias = processor.db_alias
        self._recorder = recorder.ShardRecorder(self.db_alias)
        self._strategy = choose_strategy(processor)
        self.pacer: Pacer = processor.make_pacer(shard)
        self._batch: Batch | None = None
        self._limit, self._is_authors_error = 0, False
        self._isolation = Isolation(processor, shard, self.pacer.size)
        if self._isolation.limit is None and shard.batch_size is not None and shard.batch_size < self.pacer.size:
            self._isolation.limit = shard.batch_size

    def run(self) -> bool:
        """Work one batch.

        Returns:
            Whether there may be more; False when the shard is exhausted, in which case nothing was written.

        Raises:
            FenceLost: The shard is another worker's; nothing was written.
            RetryLater, Rest: The shard is to rest; nothing was written.
            ObjectFailed: An object failed, alone and twice; what came before it is done.
            InvalidDefinition: The definition cannot be worked at all.
        """
        self._isolation.blame(self.pacer)
        max_retries = self.processor.migration.max_retries
        retries_left = conf.max_retries if max_retries is None else max_retries
        delay = 0.05
        while True:
            self._batch = None
            try:
                return self._attempt()
            except (RetryLater, Rest):
                if not self._isolation.make_room(self._batch):
                    self._shrink()
                    raise
                self.processor.learn_error()
            except FenceLost:
                if not self._is_still_mine():
                    raise
            except RowsAhead as ahead:
                self._settle(ahead)
            except Exception as error:
                if self._is_done(error):
                    return True
                self.processor.learn_error()
                timed_out = self._limit if self.processor.is_timed_out(error) and not self._is_authors_error else None
                if retries_left > 0 and (timed_out or is_worth_repeating(error, self.processor.migration)):
                    log_repeat(self.shard, self.db_alias, error)
                    retries_left -= 1
                    time.sleep(random.uniform(delay / 2, delay))
                    delay *= 2
                else:
                    self._isolation.narrow(self._batch, error, timed_out=timed_out)

    def _shrink(self) -> None:
        """After a rest that was asked for twice, begin smaller: with a quota below it no batch would be committed."""
        if self._isolation.limit is not None and not self._isolation.singles_left:
            self.shard.batch_size = max(1, self._isolation.limit // 2)

    def _attempt(self) -> bool:
        started_at = time.monotonic()
        limit = self._limit = self._isolation.limit or self.pacer.size
        self._is_authors_error = False
        for visit in range(REVISITS + 1):
            try:
                batch = self._work(limit, insists=visit == REVISITS)
                break
            except RowsChanged:
                logger.debug("%s: rows changed meanwhile are visited again", self.shard.key)
            except WritesByItself:
                self._strategy = self._strategy.within_transaction()
            self.processor.learn_error()
        else:  # the site cannot be kept from writing there: try fewer rows, and a single one later
            if limit == 1:
                raise Rest(1, "a row that the site keeps changing")
            self._isolation.limit = limit // 2
            return True
        if batch.cursor is None:
            return False
        self.processor.learn_commit(batch)
        if not self._isolation.widen(limit, self.pacer.size, len(batch.objects)):
            self.pacer.learn_batch(len(batch.objects), time.monotonic() - started_at)
        if batch.rest is not None:
            self._batch = None
            raise batch.rest
        return True

    def _work(self, limit: int, *, insists: bool) -> Batch:
        strategy = self._strategy.insist() if insists else self._strategy
        return strategy.work(self, limit)

    def fetch(self, limit: int, *, lock: bool = False) -> Batch:
        """Read the next batch of at most ``limit`` objects; its cursor is None if there is none."""
        self._batch = self.processor.fetch(self.shard, self.pacer, limit, lock=lock)
        if self._batch.cursor is not None and self._batch.cursor == self.shard.cursor:
            raise InvalidDefinition(
                f"A batch of {self.shard.key} does not move the cursor {self.shard.cursor}, so it would be repeated "
                "for ever. Let get_items() yield a cursor that no other item of the shard has, and begin after the "
                "one given.",
                key=self.shard.key,
            )
        return self._batch

    def operate(self, batch: Batch) -> None:
        """Call the author's operation, unless the batch is empty."""
        if not batch.objects:
            return
        try:
            self.processor.operate(batch)
        except Exception:
            self._is_authors_error = True
            raise

    def write(self, batch: Batch) -> dict[str, Any]:
        """Write what the operation left to the engine, then move the cursor, and return the shard's new values."""
        written = self.processor.write(batch, self.shard) if batch.objects else Written(0)
        fields = self.get_progress(batch, written)
        if batch.callbacks is not None:
            batch.callbacks.register()
        if self.processor.work_alias == self.db_alias:
            self._recorder.advance(self.shard, **fields)
        return fields

    def get_progress(self, batch: Batch, written: Written) -> dict[str, Any]:
        """Return the shard's new values once a batch is done."""
        takeovers = self._isolation.get_takeovers(len(batch.objects))
        return {
            "cursor": batch.cursor,
            **({} if batch.extension is None else {"extension": batch.extension}),
            "processed": self.shard.processed + len(batch.objects),
            "changed": self.shard.changed + (written.changed or 0),
            "left_matching": self.shard.left_matching + written.left_matching,
            "batches": self.shard.batches + 1,
            "retries": 0,
            "takeovers": takeovers,
            "batch_size": self.pacer.size,
            "rate": self.pacer.rate,
            "last_progress_at": timezone.now(),
            **clock.make_lease(self.db_alias, conf.lease_seconds),
        }

    def advance(self, fields: dict[str, Any], *, is_written: bool) -> None:
        """Take over the shard's new values after the commit, and write them unless they were committed with the batch.

        What was saved before, or in another database, has no common commit with the cursor: a crash here repeats the
        batch, but loses nothing. While others are in the way, only the cursor is written again.
        """
        if not is_written:
            run_write(self.db_alias, lambda: self._recorder.advance(self.shard, **fields))
        for name, value in fields.items():
            setattr(self.shard, name, value)

    def count_left(self, batch: Batch) -> None:
        """Count after the commit what still matches: not every database finds its own writes before."""
        left = self.processor.count_left(batch, self.shard)
        if left:  # once in a shard: once the number is known, it is not counted again
            run_write(self.db_alias, lambda: self._recorder.keep(self.shard, left_matching=left))
            self.shard.left_matching = left

    def _is_still_mine(self) -> bool:
        """Look whether only the upper bound was moved: then the batch is worked again within it.

        Where nothing is different, the batch itself changed the shard's row, and would do so each time.
        """
        stored = read_stored(self.shard, self.db_alias)
        held = self.shard.fence, MigrationShard.RUNNING, self.shard.cursor
        if stored is None or (stored.fence, stored.status, stored.cursor) != held or stored.upper == self.shard.upper:
            return False
        self.processor.learn_error()
        self.shard.upper = stored.upper
        return True

    def _settle(self, ahead: RowsAhead) -> None:
        """Continue after the largest key, or fail; after a retry the count begins again."""
        try:
            self.shard.extension = self.processor.settle(self.shard, ahead)
        except FinishRefused:
            run_write(self.db_alias, lambda: self._recorder.keep(self.shard, extension=forgive(ahead.extension)))
            raise

    def _is_done(self, error: Exception) -> bool:
        """Look whether the batch was committed although an error came out of it, as ``on_commit`` may raise one."""
        for alias in {self.db_alias, self.processor.work_alias}:
            if not connections[alias].in_atomic_block:  # as in the transaction around an author's test
                connections[alias].close_if_unusable_or_obsolete()
        if self._batch is None or self._batch.cursor in (None, self.shard.cursor):
            return False  # nothing was read, or nothing that would move the cursor
        stored = read_stored(self.shard, self.db_alias)
        if stored is None or stored.fence != self.shard.fence or stored.cursor != self._batch.cursor:
            return False
        logger.warning(
            "%s: a batch is committed, but something that ran after its commit failed",
            self.shard.key,
            exc_info=error,
            extra=get_fields(self.shard, self.db_alias, "after_commit", error_class=logs.get_class_name(error)),
        )
        for field in ("cursor", "processed", "changed", "left_matching", "batches", "upper", "extension"):
            setattr(self.shard, field, getattr(stored, field))
        self.processor.learn_commit(self._batch)
        return True

    def skip(self, failed: ObjectFailed) -> bool:
        """Keep the failure and continue after its object, in one transaction.

        Return False if the shard was cut meanwhile, so that the object may be another shard's.
        """
        takeovers = self._isolation.get_takeovers(1)

        def write() -> None:
            failed.failure.is_passed = True
            recorder.keep_failure(failed.failure, self.db_alias)
            self._recorder.advance(self.shard, cursor=failed.cursor, takeovers=takeovers)

        try:
            run_write(self.db_alias, write)
        except FenceLost:
            if not self._is_still_mine():
                raise
            return False
        self.shard.cursor, self.shard.takeovers = failed.cursor, takeovers
        return True
