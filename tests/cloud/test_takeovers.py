"""Workers that are lost in a row on Datastore and Firestore: counted, the object found, and blamed by its key."""

from __future__ import annotations

import datetime

import pytest

from massmigration import BatchMigration, executor, states
from massmigration.engine import leases
from massmigration.models import MigrationFailure, MigrationShard
from tests.cloud.app.models import Row
from tests.cloud.support import Visit, get_visits, make, make_rows, quick  # noqa: F401
from tests.engine.support import AUTHOR, claim_range, start, work

PAST = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)


class Batches(BatchMigration):
    batch_size = 5

    def get_queryset(self, db_alias):
        return Row.objects.using(db_alias)

    def operation(self, queryset, db_alias):
        for row in queryset:
            row.visits += 1
            row.save(using=db_alias)


def get_ranges(db_alias):
    return [shard for shard in MigrationShard.objects.using(db_alias) if shard.kind == "range"]


def lose(db_alias):
    for shard in get_ranges(db_alias):
        if shard.status == "running":
            MigrationShard.objects.using(db_alias).filter(pk=shard.pk).update(lease_expires_at=PAST)


@pytest.mark.parametrize("definition", [Visit, Batches])
@pytest.mark.usefixtures("quick")
def test_the_object_at_which_six_workers_were_lost_is_a_failure(db_alias, definition):
    make_rows(db_alias, 8)
    migration = make(definition, shard_count=1, batch_size=3, on_error="skip")
    start(migration, db_alias)
    for number in range(6):
        if number == 3:  # as by cron
            executor.recover(migration, db_alias, AUTHOR, enqueue=False)
        claim_range(migration, db_alias, f"dead {number}")
        lose(db_alias)
    (shard,) = get_ranges(db_alias)
    assert shard.takeovers == 5
    progress = work(migration, db_alias)
    assert (progress.status, progress.reason, progress.failed) == ("failed", states.FAILURES_OPEN, 1)
    assert get_visits(db_alias) == {0: 1, 1: 7}
    failure = MigrationFailure.objects.using(db_alias).get()
    first = Row.objects.using(db_alias).order_by("pk").first()
    assert (failure.object_key, first.visits) == (str(first.pk), 0)
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert get_visits(db_alias) == {1: 8}


def test_a_hand_over_and_what_is_no_exception(db_alias):
    class Migration(Visit):
        raised = 0

        def operation(self, row, db_alias):
            if not self.raised:
                type(self).raised = 1
                raise SystemExit(0)
            super().operation(row, db_alias)

    make_rows(db_alias, 3)
    migration = make(Migration, shard_count=1)
    start(migration, db_alias)
    leases.release(claim_range(migration, db_alias), db_alias)
    with pytest.raises(SystemExit):
        work(migration, db_alias)
    (shard,) = get_ranges(db_alias)
    assert (shard.status, shard.lease_expires_at, shard.takeovers) == ("ready", None, 1)
    assert work(migration, db_alias).status == "applied"
    assert get_ranges(db_alias)[0].takeovers == 0
