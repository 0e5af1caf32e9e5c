"""Finds the object that an operation cannot handle, with smaller and smaller batches."""

from __future__ import annotations

import random
from typing import Final

from massmigration.databases.redaction import cut, describe
from massmigration.engine.failures import RESTS, get_repr, is_worth_repeating, make_failure
from massmigration.engine.kinds.processor import Batch, Processor
from massmigration.engine.leaving import CountedRest
from massmigration.engine.pacing import Pacer
from massmigration.engine.takeovers import SINGLES_AFTER, is_found, is_searching, make_error
from massmigration.exceptions import InvalidDefinition
from massmigration.models import MigrationFailure, MigrationShard

LONGEST_REST_SECONDS: Final = 60.0
REASON_LIMIT: Final = 200


class ErrorLasts(CountedRest):
    """A transient error has lasted, however often the batch was repeated and the shard has rested."""

    def __init__(self, rests: int, error: Exception) -> None:
        seconds = min(LONGEST_REST_SECONDS, 2.0**rests)
        super().__init__(random.uniform(seconds / 2, seconds), cut(f"{describe(error)} to pass", REASON_LIMIT))


class ObjectFailed(Exception):
    """One object failed, alone and twice; ``cursor`` is where the shard stands after it, None if nothing may follow."""

    def __init__(self, failure: MigrationFailure, cursor: str | None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.cursor = cursor


class Isolation:
    """How large the batches of a shard may be, after one of them has failed or has lost its worker."""

    def __init__(self, processor: Processor, shard: MigrationShard, size: int) -> None:
        self.processor = processor
        self.shard = shard
        # How many objects still have to be worked one by one, because workers were lost at one of them. The batches
        # at which they were lost may have grown once since their size was written to the shard.
        self.singles_left = 2 * size + 1 if is_searching(shard) and processor.isolates else 0
        self.limit: int | None = 1 if self.singles_left else None  # None while nothing is wrong.
        self._suspect: tuple[str | None] | None = None  # the cursor after which a single object has raised once

    def make_room(self, batch: Batch | None) -> bool:
        """After a RetryLater, return whether a smaller batch may do what comes before the object that asked for it."""
        if batch is None or len(batch.objects) < 2 or batch.worked == 0:
            return False
        self.limit = batch.worked or len(batch.objects) // 2
        return True

    def get_takeovers(self, count: int) -> int:
        """Return how many lost workers the shard counts once ``count`` more objects are done.

        0, unless the object at which they were lost may still come: then objects are still worked one by one.
        """
        return SINGLES_AFTER if self.singles_left > count else 0

    def widen(self, limit: int, size: int, count: int) -> bool:
        """After a batch of ``count`` objects went well, allow more than its ``limit``; return whether there was one."""
        if self.limit is None:
            return False
        self.singles_left -= min(count, self.singles_left)
        if self.singles_left:
            self.limit = 1
            return True
        self.limit = min(limit * 2, size) if limit < size else None
        return True

    def blame(self, pacer: Pacer) -> None:
        """Raise ObjectFailed if workers were lost at the next object, which is then neither worked again nor read."""
        if not (is_found(self.shard) and self.processor.isolates):
            return
        batch = self.processor.peek(self.shard, pacer)
        self.processor.learn_error()
        if not batch.objects:  # it was deleted meanwhile
            return
        error = make_error(self.shard, f"at the object with key {batch.keys(0)}")
        raise ObjectFailed(make_failure(self.shard, batch.keys(0), "", error), batch.cursor) from error

    def narrow(self, batch: Batch | None, error: Exception, *, timed_out: int | None = None) -> None:
        """After an error, make the next batch smaller, down to a single object.

        If a statement of ours took longer than the database allows, ``timed_out`` is how many objects the batch was
        allowed to have: smaller batches are faster, and wait for fewer locks.

        Raises:
            ObjectFailed: A single object has raised again, re-read and alone.
            ErrorLasts: The error is transient, but has lasted: the shard has to rest.
            Exception: The error itself, if it is no object's fault.
        """
        if isinstance(error, InvalidDefinition):
            raise error
        if timed_out is not None and timed_out > 1:
            self.limit = timed_out // 2
            return
        if (
            timed_out is not None or is_worth_repeating(error, self.processor.migration)
        ) and self.shard.retries < RESTS:
            raise ErrorLasts(self.shard.retries, error) from error
        if batch is not None and len(batch.objects) > 1:
            count = len(batch.objects)
            # Worked objects are counted; if all of them were, or none was counted, it is the write that raised.
            is_known = batch.worked is not None and batch.worked < count
            self.limit = (batch.worked or 1) if is_known else count // 2
            return
        if self.processor.isolates and self._suspect != (self.shard.cursor,):
            self._suspect = (self.shard.cursor,)
            self.limit = 1
            return
        if batch is None or not batch.objects or not self.processor.isolates:
            raise ObjectFailed(make_failure(self.shard, None, "", error), None) from error
        failure = make_failure(self.shard, batch.keys(0), get_repr(batch.objects[0]), error)
        raise ObjectFailed(failure, batch.cursor) from error
