"""Writes what a worker does: one conditional UPDATE each that names its fence, so that two workers cannot both win."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from massmigration.databases import clock
from massmigration.databases.redaction import clean, make_storable
from massmigration.databases.registry import get_database
from massmigration.exceptions import FenceLost
from massmigration.models import MigrationAttempt, MigrationShard
from massmigration.recorder.shards import FREE, get_shards, select_shards


class ShardRecorder:
    """Writes what the workers of one database do.

    A worker passes its shard as it holds it; where the stored one has another fence, FenceLost is raised.
    """

    def __init__(self, db_alias: str) -> None:
        self.db_alias = db_alias
        self.database = get_database(db_alias)

    def claim(
        self,
        shard: MigrationShard,
        worker: str,
        lease_seconds: float,
        max_workers: int | None,
        pattern: MigrationShard | None = None,
    ) -> bool:
        """Try to take a shard that is ready or whose lease has run out; raise its fence if so.

        One whose lease has run out has lost its worker, which is counted in ``takeovers``.

        Args:
            shard: As it was read; updated in place on success.
            worker: Name of the worker.
            lease_seconds: How long the lease is.
            max_workers: Bound of live leases in the attempt, or None.
            pattern: A shard of the attempt whose batch size and rate a fresh one begins with.

        Returns:
            Whether this worker holds the shard now. To be called in a write transaction.
        """
        if max_workers is not None and self._count_others(shard) >= max_workers:
            return False
        fence = shard.fence + 1
        fields: dict[str, Any] = {
            "fence": fence,
            "status": MigrationShard.RUNNING,
            "worker": clean(worker),
            **clock.make_lease(self.db_alias, lease_seconds),
            "not_before": None,
            "waiting_for": "",
        }
        if pattern is not None and shard.batch_size is None:
            fields |= {"batch_size": pattern.batch_size, "rate": pattern.rate}
        expected: dict[str, Any] = {"fence": shard.fence, "status": shard.status}
        if shard.status == MigrationShard.RUNNING:
            expected["cursor"] = shard.cursor  # a worker that has moved it meanwhile is not lost
            fields["takeovers"] = (shard.takeovers or 0) + 1
        if not self._update(shard.pk, expected, fields):
            return False
        shard.refresh_from_db(using=self.db_alias)
        return shard.fence == fence

    def renew_lease(self, shard_id: str, fence: int, lease_seconds: float) -> bool:
        """Extend the lease of the worker that holds this fence; return whether it still does.

        Args:
            shard_id: Primary key of the shard.
            fence: The worker's.
            lease_seconds: How long the lease is, from now on.
        """
        held = {"fence": fence, "status": MigrationShard.RUNNING}
        return self._update(shard_id, held, clock.make_lease(self.db_alias, lease_seconds))

    def advance(self, shard: MigrationShard, **fields: Any) -> None:
        """Write a shard's progress: the last statement of each batch.

        Args:
            shard: As its worker holds it; its fence, cursor and upper bound are compared with the stored ones.
            **fields: What to set; ``shard`` itself is not changed, because the commit is still to come.

        Raises:
            FenceLost: The stored shard is another worker's by now, or its bounds were changed.
        """
        self._update_held(shard, fields, cursor=shard.cursor, upper=shard.upper)

    def keep(self, shard: MigrationShard, **fields: Any) -> None:
        """Write what a worker has learnt of its shard between two batches; compares the fence only."""
        self._update_held(shard, fields)

    def finish_shard(self, shard: MigrationShard) -> None:
        """Mark a shard as done, wherever its upper bound is: an empty range that was cut is empty, too."""
        done = {"status": MigrationShard.DONE, "takeovers": 0, "finished_at": timezone.now()}
        self._update_held(shard, FREE | done)

    def fail_shard(self, shard: MigrationShard) -> None:
        """Mark a shard as failed; its cursor stays."""
        self._update_held(shard, FREE | {"status": MigrationShard.FAILED})

    def release_shard(
        self,
        shard: MigrationShard,
        *,
        rest_seconds: float = 0,
        waiting_for: str = "",
        rests: int | None = None,
        is_loss: bool = False,
    ) -> None:
        """Hand a shard back, so that any worker may continue from its cursor.

        Args:
            shard: As its worker holds it.
            rest_seconds: For how long no worker may take it.
            waiting_for: Why it rests.
            rests: How many times in a row it has rested without progress; None: as often as before.
            is_loss: Whether its worker counts as lost.
        """
        ready = {
            "status": MigrationShard.READY,
            "not_before": timezone.now() + timedelta(seconds=rest_seconds) if rest_seconds else None,
            "enqueued_at": timezone.now(),
            "waiting_for": make_storable(waiting_for)[:255],
            "retries": shard.retries if rests is None else rests,
            "batch_size": shard.batch_size,
        }
        if is_loss:
            ready["takeovers"] = (shard.takeovers or 0) + 1
        self._update_held(shard, FREE | ready)

    def record_enqueued(self, shard: MigrationShard) -> None:
        """Record that a shard that no worker holds was put on the queue again."""
        unchanged = {"fence": shard.fence, "status": shard.status}
        self._update(shard.pk, unchanged, {"enqueued_at": timezone.now(), "waiting_for": ""})

    def record_waiting(self, shard: MigrationShard, waiting_for: str) -> None:
        """Record what a ready shard waits for that a worker left alone, so that the next watch enqueues it."""
        ready = {"fence": shard.fence, "status": MigrationShard.READY}
        fields = {"waiting_for": waiting_for, "not_before": None, "enqueued_at": timezone.now()}
        self._update(shard.pk, ready, fields)

    def _update(self, shard_id: str, expected: dict[str, Any], fields: dict[str, Any]) -> bool:
        return bool(self.database.update_if(select_shards([shard_id], self.db_alias), expected, fields))

    def _update_held(self, shard: MigrationShard, fields: dict[str, Any], **expected: Any) -> None:
        held = {"fence": shard.fence, "status": MigrationShard.RUNNING, **expected}
        if not self._update(shard.pk, held, fields):
            raise FenceLost(f"Shard {shard.pk} was taken from worker {shard.worker}.", key=shard.key)

    def _count_others(self, shard: MigrationShard) -> int:
        """Return how many other shards of the attempt are held; no other worker can take one until the commit."""
        if self.database.reads_block_writes:
            others = [other for other in get_shards(shard.attempt_uuid, self.db_alias) if other.pk != shard.pk]
            held = [other for other in others if other.status == MigrationShard.RUNNING]
            return sum(clock.is_leased(other, self.db_alias) for other in held)
        if self.database.has_row_locks:  # claims wait for each other, or two of them would see one free place
            attempts = MigrationAttempt.objects.using(self.db_alias).filter(pk=shard.attempt_uuid)
            list(attempts.select_for_update().values_list("pk"))
        rows = MigrationShard.objects.using(self.db_alias).filter(attempt_uuid=shard.attempt_uuid)
        running = rows.filter(status=MigrationShard.RUNNING).exclude(pk=shard.pk)
        return sum(clock.is_leased(other, self.db_alias) for other in running.only("lease_until", "lease_expires_at"))
