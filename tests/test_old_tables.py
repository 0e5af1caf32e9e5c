"""During a deploy: attempts that the version before has begun are worked to their end, and its workers still write."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import pytest
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.db.models import F
from django.utils import timezone

from massmigration import MapperMigration, executor, recorder, states
from tests.engine.support import AUTHOR, get_progress, make, start, work
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

OLD = [("massmigration", "0001_initial")]
ROWS = 60


class CountVisits(MapperMigration):
    update_fields = ["visits"]
    batch_size = 7

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


def get_old_models(db_alias):
    """Return the models as the version before knows them."""
    return MigrationExecutor(connections[db_alias]).loader.project_state(OLD).apps


@pytest.fixture
def old_tables(db_alias):
    """Have the tables of the version before, until the test calls what is given: it migrates them."""
    newest = list(MigrationExecutor(connections[db_alias]).loader.graph.leaf_nodes("massmigration"))

    def migrate():
        MigrationExecutor(connections[db_alias]).migrate(newest)

    MigrationExecutor(connections[db_alias]).migrate(OLD)
    try:
        yield migrate
    finally:
        migrate()


def has_columns(db_alias, table, *names):
    with connections[db_alias].cursor() as cursor:
        found = {column.name for column in connections[db_alias].introspection.get_table_description(cursor, table)}
    return found >= set(names)


def begin_as_before(db_alias, lease_seconds):
    """Write what a run in full swing looks like: a range that is done, one with a worker, one that waits."""
    models = get_old_models(db_alias)
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(ROWS))
    keys = list(City.objects.using(db_alias).order_by("pk").values_list("pk", flat=True))
    now, attempt_uuid = timezone.now(), uuid.uuid4()
    City.objects.using(db_alias).filter(pk__lte=keys[24]).update(visits=1)
    models.get_model("massmigration", "MigrationRecord").objects.using(db_alias).create(
        key="testapp:0001_test", app_label="testapp", name="0001_test", status="running", attempt_uuid=attempt_uuid
    )
    models.get_model("massmigration", "MigrationAttempt").objects.using(db_alias).create(
        uuid=attempt_uuid, key="testapp:0001_test", total=ROWS, source_hash="a" * 64
    )
    shard_model = models.get_model("massmigration", "MigrationShard")

    def add(kind, number, **fields):
        shard_model.objects.using(db_alias).create(
            id=f"{attempt_uuid.hex}-{kind}-1-{number}",
            attempt_uuid=attempt_uuid,
            key="testapp:0001_test",
            kind=kind,
            number=number,
            **fields,
        )

    one, other = json.dumps(keys[19]), json.dumps(keys[39])
    add("plan", 0, status="done", fence=1, finished_at=now)
    add("range", 0, status="done", fence=1, upper=one, cursor=one, processed=20, changed=20, finished_at=now)
    add(
        "range",
        1,
        status="running",
        fence=3,
        worker="old:1:abc",
        lower=one,
        upper=other,
        cursor=json.dumps(keys[24]),
        processed=5,
        changed=5,
        batches=1,
        last_progress_at=now,
        lease_expires_at=now + timedelta(seconds=lease_seconds),
    )
    add("range", 2, status="ready", lower=other)
    return attempt_uuid


@pytest.mark.parametrize("action", ["work", "pause and resume", "recover"])
def test_an_attempt_begun_on_the_old_tables_ends_on_the_new_ones(old_tables, db_alias, action):
    assert not has_columns(db_alias, "massmigration_shard", "lease_until")
    lease_seconds = 1.0 if action == "work" else -1.0
    attempt_uuid = begin_as_before(db_alias, lease_seconds)
    old_tables()
    assert has_columns(db_alias, "massmigration_shard", "lease_until", "takeovers", "extension")
    migration = make(CountVisits)
    if action == "work":
        assert get_progress(migration.key, db_alias, migration).workers_alive == 1, "its lease holds"
    elif action == "recover":
        executor.recover(migration, db_alias, AUTHOR, enqueue=False)
    else:
        executor.pause(migration.key, db_alias, AUTHOR)
        executor.resume(migration, db_alias, AUTHOR, enqueue=False)
    progress = work(migration, db_alias)
    assert (progress.status, progress.processed, progress.changed) == (states.APPLIED, ROWS, ROWS)
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}
    # The old worker comes back to life: the version before commits with this statement, which must hit no row.
    shards = get_old_models(db_alias).get_model("massmigration", "MigrationShard").objects.using(db_alias)
    late = shards.filter(pk=f"{attempt_uuid.hex}-range-1-1", fence=3, status="running")
    assert late.update(processed=F("processed") + 5, lease_expires_at=timezone.now()) == 0


def test_workers_of_the_version_before_still_write_to_the_new_tables(db_alias):
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(ROWS))
    migration = make(CountVisits)
    start(migration, db_alias)
    models = get_old_models(db_alias)
    (attempt,) = models.get_model("massmigration", "MigrationAttempt").objects.using(db_alias).all()
    attempt.total = ROWS
    attempt.save(using=db_alias)
    shards = models.get_model("massmigration", "MigrationShard").objects.using(db_alias)
    plan = shards.get()
    claimed = {"fence": 1, "status": "running", "worker": "old:1:abc", "lease_expires_at": timezone.now()}
    assert shards.filter(pk=plan.pk, fence=0).update(**claimed) == 1
    shards.bulk_create(
        shards.model(
            id=f"{attempt.pk.hex}-range-1-{number}", attempt_uuid=attempt.pk, key=plan.key, kind="range", number=number
        )
        for number in range(1)
    )
    assert shards.filter(pk=plan.pk, fence=1).update(status="done", lease_expires_at=None) == 1
    records = models.get_model("massmigration", "MigrationRecord").objects.using(db_alias)
    assert records.filter(status="enqueued").update(status="running") == 1
    models.get_model("massmigration", "MigrationFailure").objects.using(db_alias).create(
        id="f" * 32, attempt_uuid=attempt.pk, key=plan.key, shard_id=plan.pk, error_class="x", status="retried"
    )
    models.get_model("massmigration", "MigrationEvent").objects.using(db_alias).create(
        id="9" * 32, key=plan.key, action="begin"
    )
    assert work(migration, db_alias).status == states.APPLIED
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}
    (attempt,) = [recorder.get_attempt(attempt.pk, db_alias)]
    assert attempt.planned_for is not None, "unknown, and taken from the first who asked"


def test_what_is_added_to_the_tables_may_be_unknown(db_alias):
    executor_of_new = MigrationExecutor(connections[db_alias])
    newest = executor_of_new.loader.graph.leaf_nodes("massmigration")
    new, old = executor_of_new.loader.project_state(newest).apps, get_old_models(db_alias)
    for model in new.get_app_config("massmigration").get_models():
        known = {field.name for field in old.get_model("massmigration", model.__name__)._meta.get_fields()}
        for field in model._meta.get_fields():
            assert field.name in known or field.null, f"workers of the version before insert no {field.name}"
