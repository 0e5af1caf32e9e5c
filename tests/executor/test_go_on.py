"""Resume and retry: what was left undone is done, and only then the run ends."""

from __future__ import annotations

import pytest

from massmigration import BaseMigration, MapperMigration, RetryLater, executor, recorder
from massmigration.databases.transactions import run_write
from massmigration.engine.finish import make_finish_if_due
from massmigration.models import MigrationShard
from tests.engine.support import AUTHOR, claim_range, in_threads, make, run, start, work
from tests.executor.support import CountVisits, make_cities
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


def test_a_retried_row_that_rests_keeps_the_run_from_finishing(db_alias):
    class Migration(CountVisits):
        on_error = "skip"
        is_broken = True
        rests = 0

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if city.name == "City 3":
                if self.is_broken:
                    raise ValueError("broken")
                if self.rests < 2:
                    type(self).rests += 1
                    raise RetryLater(0.3, "an API")

    make_cities(db_alias, 10)
    migration = make(Migration)
    assert run(migration, db_alias).reason == "failures_open"
    Migration.is_broken = False
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.processed, Migration.rests) == ("applied", 10, 2)
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_a_retry_after_not_empty_goes_over_the_table_again(db_alias):
    class Migration(MapperMigration):
        update_fields = ["visits"]
        until_empty = True
        goal = 1000

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).filter(visits__lt=self.goal)

        def operation(self, city, db_alias):
            city.visits += 1

    make_cities(db_alias, 3)
    migration = make(Migration)
    assert run(migration, db_alias).reason == "not_empty"
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).reason == "not_empty"
    Migration.goal = 12
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {12}


def test_a_retry_launches_a_hand_written_migration_again(db_alias):
    class Migration(BaseMigration):
        launches = 0

        def launch(self, db_alias):
            type(self).launches += 1
            if self.launches == 1:
                self.mark_as_errored(db_alias, ValueError("down"))
            elif self.launches == 2:
                raise RuntimeError("still down")
            else:
                self.mark_as_finished(db_alias)

    migration = make(Migration)
    assert run(migration, db_alias).error == "ValueError: down"
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).error == "RuntimeError: still down"
    executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert Migration.launches == 3


def test_the_finish_shard_is_made_once_however_many_see_that_it_is_due(db_alias):
    make_cities(db_alias, 10)
    migration = make(CountVisits)
    attempt_uuid = start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    assert make_finish_if_due(migration, db_alias, attempt_uuid) is None
    run_write(db_alias, lambda: recorder.ShardRecorder(db_alias).advance(shard, status="done"))
    in_threads(*[lambda: make_finish_if_due(migration, db_alias, attempt_uuid)] * 4)
    assert MigrationShard.objects.using(db_alias).filter(kind="finish").count() == 1
