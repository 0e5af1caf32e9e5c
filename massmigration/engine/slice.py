"""One visit of a worker to a shard: many batches, until the range or the time is over or the run is stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from django.db import connections

from massmigration import logs, record_cache, recorder, states
from massmigration.conf import conf
from massmigration.databases.redaction import describe
from massmigration.databases.registry import get_database, is_transient
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration, make_own
from massmigration.engine.accepted import stays_accepted
from massmigration.engine.batch import BatchRunner
from massmigration.engine.breaker import Breaker
from massmigration.engine.finish import run_finish
from massmigration.engine.isolation import ObjectFailed
from massmigration.engine.kinds import get_kind
from massmigration.engine.kinds.processor import Processor
from massmigration.engine.leases import Heartbeat, release
from massmigration.engine.leaving import CountedRest, Rest, Stopped
from massmigration.engine.planning import run_plan
from massmigration.engine.refusals import FinishRefused
from massmigration.engine.slice_log import SliceLog, get_fields, log_takeover
from massmigration.engine.takeovers import check_takeovers
from massmigration.exceptions import FenceLost, RetryLater, WorkersLost, check_rest
from massmigration.models import MigrationFailure, MigrationShard
from massmigration.recorder import Author

DONE: Final = "done"
TIME_UP: Final = "time_up"
STOPPED: Final = "stopped"
RESTING: Final = "resting"
LOST: Final = "lost"
FAILED: Final = "failed"
BROKEN_OFF: Final = "broken_off"
"""The visit ended with an error that its caller deals with: for the log only, nothing returns it."""

SHORTEST_REST_SECONDS: Final = 0.1
"""The shortest rest, so that a shard that asks for none does not keep a worker spinning."""


class Slice:
    """One visit of a worker to a shard that it holds.

    Args:
        shard: The shard, claimed by this worker.
        migration: The definition; the visit makes a new instance, which no other thread sees.
        db_alias: The database.
        seconds: How long the visit may take; None: as long as the setting says.
        should_stop: Asked between batches and objects: whether the process has to end.
        on_batch: Called after each batch.
    """

    def __init__(
        self,
        shard: MigrationShard,
        migration: BaseMigration,
        db_alias: str,
        *,
        seconds: float | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        on_batch: Callable[[], None] = lambda: None,
    ) -> None:
        self.shard = shard
        self.migration = migration
        self.db_alias = db_alias
        self._recorder = recorder.ShardRecorder(db_alias)
        self.author = Author(shard.worker, "worker", sender=type(migration))
        self._seconds = conf.slice_seconds if seconds is None else min(seconds, conf.slice_seconds)
        self._process_stops = should_stop
        self._on_batch = on_batch
        self._looked_at = self._sign_at = time.monotonic()
        self._hang_seconds = conf.hang_seconds
        self._log = SliceLog(shard, db_alias)
        self._patience_seconds = conf.record_cache_timeout  # once: it is asked between any two objects

    def run(self) -> str:
        """Work on the shard and return how the visit ended: one of the constants of this module."""
        log_takeover(self.shard, self.db_alias)
        try:
            outcome, extra = self._visit()
        except BaseException as error:
            if not isinstance(error, Exception):
                self._leave()
            self._log.end(BROKEN_OFF, level=logging.WARNING, detail=describe(error))
            raise
        self._log.end(outcome, **extra)
        return outcome

    def _leave(self) -> None:
        """Hand the shard back because the process has to end in the middle of a call, as by SystemExit.

        It may come from the author's code or from a signal, so it counts as a lost worker, and no object is blamed.
        """
        with suppress(Exception):  # else the lease expires, and the worker that takes the shard over counts it
            connections[self.db_alias].close_if_unusable_or_obsolete()
            release(self.shard, self.db_alias, is_loss=True)

    def _visit(self) -> tuple[str, dict[str, Any]]:
        """Work on the shard and return how the visit ended, and what its log line says of that."""
        try:
            check_takeovers(self.shard, self.migration)
            self.migration = make_own(self.migration)
            get_kind(self.migration).check_declarations()  # also here, because a deploy may have changed them
            with Heartbeat(self.shard, self.db_alias, self._has_hung):
                if self.shard.kind == MigrationShard.RANGE:
                    return self._run_range(), {}
                run = run_plan if self.shard.kind == MigrationShard.PLAN else run_finish
                run(self.shard, self.migration, self.db_alias, self.author)
                return DONE, {}
        except (FenceLost, Stopped) as lost:
            release(self.shard, self.db_alias)  # if it is still ours, because the record was paused
            return LOST, {"detail": str(lost)}
        except (RetryLater, Rest) as rest:
            return self._rest(rest)
        except FinishRefused as refusal:
            return self._fail(refusal.reason, str(refusal), refusal.__cause__ or refusal), {}
        except ObjectFailed as failed:
            failure = failed.failure
            cause = failed.__cause__ or failed
            sentence = describe(cause)
            if failure.object_key is not None and not isinstance(cause, WorkersLost):
                sentence += f" (object '{failure.object_repr}' with key {failure.object_key})"
            return self._fail(states.OPERATION_ERROR, sentence, cause, failure), {}
        except Exception as error:
            if is_transient(error):  # the worker's loop waits until the database answers again
                raise
            return self._fail(states.OPERATION_ERROR, describe(error), error), {}

    def _rest(self, rest: RetryLater | Rest) -> tuple[str, dict[str, Any]]:
        shortest = max(SHORTEST_REST_SECONDS, get_database(self.db_alias).write_interval)
        try:
            seconds = max(check_rest(rest.seconds), shortest)
        except (TypeError, ValueError) as error:  # of an author's subclass, which sets it by itself
            return self._fail(states.OPERATION_ERROR, describe(error), error), {}
        rests = self.shard.retries + isinstance(rest, CountedRest)
        release(self.shard, self.db_alias, rest_seconds=seconds, waiting_for=str(rest), rests=rests)
        return RESTING, {"detail": str(rest), "rest_seconds": seconds}

    def _run_range(self) -> str:
        processor = get_kind(self.migration).make_processor(self.db_alias, self._stops_between_objects)
        runner = BatchRunner(processor, self.shard)
        breaker = Breaker(processor.migration.max_failures, self.shard, self.db_alias)
        deadline = time.monotonic() + self._seconds
        while True:
            began_at = time.monotonic()
            if self._stops_between_batches():
                release(self.shard, self.db_alias)
                return STOPPED
            try:
                has_more = runner.run()
            except ObjectFailed as failed:
                if not self._skips(failed, processor):
                    raise
                if not runner.skip(failed):
                    continue
                self._log.log_failure(failed.failure, failed.__cause__)
                if failed.failure.status == MigrationFailure.OPEN and (sentence := breaker.record_failure()):
                    return self._fail(states.MAX_FAILURES, sentence, failed.__cause__ or failed)
                has_more = True
            self._on_batch()
            if not has_more:
                run_write(self.db_alias, lambda: self._recorder.finish_shard(self.shard))
                return DONE
            if time.monotonic() > deadline:
                release(self.shard, self.db_alias)
                return TIME_UP
            rest_of_interval = began_at + processor.interval_seconds - time.monotonic()
            if processor.gap_seconds or rest_of_interval > 0:
                time.sleep(max(processor.gap_seconds, rest_of_interval))

    def _skips(self, failed: ObjectFailed, processor: Processor) -> bool:
        if failed.cursor is None:
            return False
        return stays_accepted(failed.failure, self.db_alias) or processor.migration.on_error == "skip"

    def _stops_between_batches(self) -> bool:
        self._looked_at = self._sign_at = time.monotonic()
        standing = record_cache.read_standing(self.shard.key, self.db_alias)
        return self._is_over(standing) or self._process_stops()

    def _stops_between_objects(self) -> bool:
        if self._process_stops():
            return True
        now = self._sign_at = time.monotonic()
        if now - self._looked_at < self._patience_seconds:
            return False
        self._looked_at = now
        return self._is_over(record_cache.get_standing(self.shard.key, self.db_alias))

    def _has_hung(self) -> bool:
        """Look whether no object was done for too long; the length of a single call says nothing."""
        if self.shard.kind != MigrationShard.RANGE or not get_kind(self.migration).has_objects:
            return False
        return time.monotonic() - self._sign_at > self._hang_seconds

    def _is_over(self, standing: record_cache.Standing) -> bool:
        return standing.status not in states.ACTIVE or standing.attempt_uuid != self.shard.attempt_uuid

    def _fail(self, reason: str, sentence: str, error: BaseException, failure: MigrationFailure | None = None) -> str:
        about = get_fields(self.shard, self.db_alias, "fail", object_key=failure.object_key if failure else None)

        def write() -> None:
            self._recorder.fail_shard(self.shard)
            if failure is not None:
                recorder.keep_failure(failure, self.db_alias)
            of_attempt, cause = self.shard.attempt_uuid, logs.Cause(error, about["json_fields"])
            if not recorder.fail(self.shard.key, self.db_alias, self.author, of_attempt, sentence, reason, cause):
                raise Stopped(f"{self.shard.key} was stopped before it failed.")
            if reason == states.FAILURES_OPEN and not recorder.count_open_failures(of_attempt, self.db_alias):
                raise Rest(0, "its end, since the last failure was accepted meanwhile")

        try:
            run_write(self.db_alias, write)
        except (FenceLost, Stopped):  # paused, cancelled or failed already: the object is met again later
            release(self.shard, self.db_alias)
            return LOST
        except Rest:
            release(self.shard, self.db_alias)
            return RESTING
        return FAILED
