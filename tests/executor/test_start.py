"""Start: refused before anything is written, or an attempt that visits every row."""

from __future__ import annotations

import pytest

from massmigration import executor, recorder
from massmigration.databases.transactions import run_write
from massmigration.engine.slice import LOST, Slice
from massmigration.exceptions import (
    DatabaseNotAllowed,
    DependencyNotApplied,
    InvalidDefinition,
)
from massmigration.models import MigrationAttempt, MigrationShard
from tests.engine.support import AUTHOR, make, run, start, work
from tests.executor.support import CountVisits, make_cities
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


def test_dependencies_have_to_be_applied(db_alias):
    class Needs(CountVisits):
        dependencies = [("testapp", "0001_first")]
        schema_dependencies = [("testapp", "0001_initial"), ("testapp", "9999_to_come")]

    first, migration = make(CountVisits, "0001_first"), make(Needs, "0002_second")
    with pytest.raises(DependencyNotApplied, match="testapp:0001_first") as refusal:
        executor.start(migration, db_alias, AUTHOR, enqueue=False)
    assert refusal.value.missing == ["testapp:0001_first", "testapp.9999_to_come"]
    Needs.schema_dependencies = [("testapp", "0001_initial")]
    start(first, db_alias)
    with pytest.raises(DependencyNotApplied):  # running is not applied
        executor.start(migration, db_alias, AUTHOR, enqueue=False)
    executor.cancel(first.key, db_alias, AUTHOR)
    executor.fake(first, db_alias, AUTHOR)
    assert run(migration, db_alias).status == "applied"


def test_a_database_that_is_not_allowed_is_refused(db_alias):
    class Elsewhere(CountVisits):
        allowed_db_aliases = ["nowhere"]

    with pytest.raises(DatabaseNotAllowed, match="does not run on database"):
        executor.start(make(Elsewhere), db_alias, AUTHOR)
    with pytest.raises(DatabaseNotAllowed, match="There is no database 'typo'"):
        executor.start(make(CountVisits), "typo", AUTHOR)


def test_before_start_may_refuse_and_nothing_is_written(db_alias):
    class Migration(CountVisits):
        def before_start(self, db_alias):
            raise InvalidDefinition("Not on a Friday.")

    with pytest.raises(InvalidDefinition, match="Not on a Friday"):
        executor.start(make(Migration), db_alias, AUTHOR, enqueue=False)
    assert recorder.get_record("testapp:0001_test", db_alias) is None
    assert recorder.get_events("testapp:0001_test", db_alias, 10) == []


def test_reset_and_start_again_visits_every_row_again(db_alias):
    make_cities(db_alias)
    migration = make(CountVisits)
    run(migration, db_alias)
    executor.reset(migration.key, db_alias, AUTHOR)
    assert recorder.get_record(migration.key, db_alias) is None
    assert not MigrationShard.objects.using(db_alias).exists()
    assert run(migration, db_alias).processed == 100
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {2}
    assert MigrationAttempt.objects.using(db_alias).count() == 2


def test_a_planning_that_is_done_twice_makes_nothing_twice(db_alias):
    class Migration(CountVisits):
        shard_count = 3

    make_cities(db_alias)
    migration = make(Migration)
    attempt_uuid = start(migration, db_alias)
    (plan,) = recorder.get_shards(attempt_uuid, db_alias)
    late = recorder.get_shard(plan.pk, db_alias)
    run_write(db_alias, lambda: recorder.ShardRecorder(db_alias).claim(late, "late", 0.01, None))
    second = recorder.get_shard(plan.pk, db_alias)
    run_write(db_alias, lambda: recorder.ShardRecorder(db_alias).claim(second, "second", 30, None))
    assert Slice(second, migration, db_alias).run() == "done"
    assert Slice(late, migration, db_alias).run() == LOST
    assert MigrationShard.objects.using(db_alias).filter(kind="range").count() == 3
    assert work(migration, db_alias).processed == 100
