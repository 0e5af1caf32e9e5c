"""The log lines of a worker's visit to a shard: one at its end, and one for each object that was skipped."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from massmigration import logs, wording
from massmigration.models import MigrationFailure, MigrationShard

logger = logging.getLogger("massmigration")

FAILURE_LINES: Final = 100
"""How many failures of one visit get a line each; further ones are only counted, so that no run floods the log."""

REST_LINE_SECONDS: Final = 60.0
"""How often a shard that rests repeatedly is logged, such as one that waits for a service with a quota."""

_logged_at: dict[str, float] = {}


def get_fields(shard: MigrationShard, db_alias: str, event: str, **values: Any) -> dict[str, Any]:
    """Return the fields of a line about a shard, for ``extra``."""
    return logs.fields(
        event=event,
        key=shard.key,
        db_alias=db_alias,
        attempt=shard.attempt_uuid,
        shard=shard.pk,
        shard_kind=shard.kind,
        worker=shard.worker,
        **values,
    )


def log_takeover(shard: MigrationShard, db_alias: str) -> None:
    """Log that a shard was taken after its last workers were lost, if any were."""
    if shard.takeovers:
        logger.warning(
            "%s: shard %s has lost %s in a row before its cursor moved%s",
            shard.key,
            shard.pk,
            wording.count(shard.takeovers, "workers"),
            f" from {shard.cursor}" if shard.cursor is not None else "",
            extra=get_fields(shard, db_alias, "taken_over"),
        )


def log_repeat(shard: MigrationShard, db_alias: str, error: BaseException) -> None:
    """Log that a batch is repeated after a transient error."""
    logger.warning(
        "%s: a batch is repeated after %s",
        shard.key,
        error,
        extra=get_fields(shard, db_alias, "repeat", error_class=logs.get_class_name(error)),
    )


class SliceLog:
    """Measures a visit, which begins when this is made, and writes its lines."""

    def __init__(self, shard: MigrationShard, db_alias: str) -> None:
        self.shard = shard
        self.db_alias = db_alias
        self.failures = 0
        self._started_at = time.monotonic()
        self._cursor = shard.cursor
        self._processed, self._changed, self._batches = shard.processed, shard.changed, shard.batches

    def log_failure(self, failure: MigrationFailure, error: BaseException | None) -> None:
        """Log that an object failed and was skipped; its traceback is kept with the failure."""
        self.failures += 1
        if self.failures > FAILURE_LINES:
            return
        logger.warning(
            "%s: the object '%s' with key %s failed and was skipped: %s: %s%s",
            self.shard.key,
            failure.object_repr,
            failure.object_key,
            failure.error_class.rpartition(".")[2],
            failure.message,
            " (further failures of this slice are counted only)" if self.failures == FAILURE_LINES else "",
            extra=get_fields(
                self.shard,
                self.db_alias,
                "failure",
                failure=failure.pk,
                object_key=failure.object_key,
                error_class=logs.get_class_name(error),
            ),
        )

    def end(self, outcome: str, *, level: int = logging.INFO, detail: str = "", rest_seconds: float = 0) -> None:
        """Log how the visit ended, with the reason in one line, and for how long the shard rests."""
        if rest_seconds and not _is_rest_due(self.shard.pk):
            level = logging.DEBUG
        seconds = time.monotonic() - self._started_at
        rows = self.shard.processed - self._processed
        logger.log(
            level,
            "%s: slice of shard %s ended with %s after %s in %.1f seconds%s",
            self.shard.key,
            self.shard.pk,
            outcome,
            wording.count(rows, "rows"),
            seconds,
            f": {detail}" if detail else "",
            extra=get_fields(
                self.shard,
                self.db_alias,
                "slice",
                outcome=outcome,
                rows=rows,
                changed=self.shard.changed - self._changed,
                batches=self.shard.batches - self._batches,
                failures=self.failures,
                seconds=seconds,
                rate=rows / seconds if seconds else None,
                cursor_before=self._cursor,
                cursor_after=self.shard.cursor,
                detail=detail,
                rest_seconds=rest_seconds or None,
            ),
        )


def _is_rest_due(shard_id: str) -> bool:
    now = time.monotonic()
    for other, at in list(_logged_at.items()):
        if now - at > REST_LINE_SECONDS:
            _logged_at.pop(other, None)
    if shard_id in _logged_at:
        return False
    _logged_at[shard_id] = now
    return True
