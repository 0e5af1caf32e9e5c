"""Pause and cancel against what workers do at the same moment: nothing is lost."""

from __future__ import annotations

import threading

import pytest

from massmigration import executor
from massmigration.engine.slice import LOST, Slice
from tests.engine.support import AUTHOR, claim_range, get_progress, in_threads, make, start, work
from tests.executor.support import CountVisits, make_cities
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


def test_pause_against_finish_either_wins_and_nothing_sticks(db_alias):
    make_cities(db_alias, 10)

    class Migration(CountVisits):
        asked = threading.Event()
        go_on = threading.Event()

        def verify(self, db_alias):
            self.asked.set()
            assert self.go_on.wait(30)

    migration = make(Migration)
    start(migration, db_alias)

    def pause():
        assert Migration.asked.wait(30)
        executor.pause(migration.key, db_alias, AUTHOR)
        Migration.go_on.set()

    in_threads(lambda: work(migration, db_alias), pause)
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.status, progress.workers_alive) == ("paused", 0)
    executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_an_object_that_fails_after_a_pause_leaves_no_failure_behind(db_alias):
    class Migration(CountVisits):
        entered = threading.Event()
        go_on = threading.Event()
        is_broken = True

        def operation(self, city, db_alias):
            super().operation(city, db_alias)
            if self.is_broken:
                self.entered.set()
                assert self.go_on.wait(30)
                raise ValueError("broken")

    make_cities(db_alias, 10)
    migration = make(Migration)
    start(migration, db_alias)

    def pause():
        assert Migration.entered.wait(30)
        executor.pause(migration.key, db_alias, AUTHOR)
        Migration.go_on.set()

    in_threads(lambda: work(migration, db_alias), pause)
    progress = get_progress(migration.key, db_alias, migration)
    assert (progress.status, progress.failed) == ("paused", 0)
    Migration.is_broken = False
    executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.failed, progress.processed) == ("applied", 0, 10)


def test_a_late_slice_of_a_cancelled_attempt_changes_nothing(db_alias):
    make_cities(db_alias)
    migration = make(CountVisits)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    executor.cancel(migration.key, db_alias, AUTHOR)
    executor.reset(migration.key, db_alias, AUTHOR)
    start(migration, db_alias)
    runner = Slice(shard, migration, db_alias)
    runner._stops_between_batches = lambda: False  # as if the status were read too late
    assert runner.run() == LOST
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {0}
    assert work(migration, db_alias).status == "applied"
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}
