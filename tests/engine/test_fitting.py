"""A file that changes during a run so that its shards do not fit any more is refused, and no row is skipped."""

from __future__ import annotations

import pytest
from django.db.models import F

from massmigration import (
    BaseMigration,
    BatchMigration,
    CustomMigration,
    MapperMigration,
    SimpleMigration,
    executor,
    recorder,
    states,
)
from massmigration.engine.kinds import get_kind
from massmigration.exceptions import InvalidDefinition
from massmigration.executor.accept import accept
from massmigration.models import MigrationAttempt, MigrationRecord
from tests.engine.support import AUTHOR, make, start, work
from tests.testapp.models import City, CompositeRow, SparseInt, TextRow

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


class Mapper(MapperMigration):
    batch_size = 5

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        City.objects.using(db_alias).filter(pk=city.pk).update(visits=F("visits") + 1)


class OtherModel(Mapper):
    def get_queryset(self, db_alias):
        return SparseInt.objects.using(db_alias)


class OtherKeyType(Mapper):
    def get_queryset(self, db_alias):
        return TextRow.objects.using(db_alias)


class OtherDatabase(Mapper):
    other_database = "default"

    def get_queryset(self, db_alias):
        return City.objects.using("default")


class Batch(BatchMigration):
    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, queryset, db_alias):
        queryset.update(visits=1)


class Custom(CustomMigration):
    def get_shards(self, db_alias):
        return [1]

    def get_items(self, shard, cursor, db_alias):
        yield 1, 1

    def operation(self, item, db_alias):
        pass


class Simple(SimpleMigration):
    def operation(self, db_alias):
        pass


class ByHand(BaseMigration):
    def launch(self, db_alias):
        self.mark_as_finished(db_alias)


CHANGES = {
    OtherModel: "model testapp.City, but its file now has model testapp.SparseInt",
    OtherKeyType: "model testapp.City, but its file now has model testapp.TextRow",
    OtherDatabase: "no other_database, but its file now has other_database 'default'",
    Batch: "class MapperMigration, but its file now has class BatchMigration",
    Custom: "class MapperMigration, but its file now has class CustomMigration",
    Simple: "class MapperMigration, but its file now has class SimpleMigration",
    ByHand: "class MapperMigration, but its file now has class BaseMigration",
}


@pytest.fixture
def begun(db_alias):
    """Begin a run of Mapper, with a range that has its first batch behind it."""
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(20))
    migration = make(Mapper)
    start(migration, db_alias)
    batches = []
    work(migration, db_alias, should_stop=lambda: len(batches) > 1, on_progress=lambda: batches.append(1))
    assert 0 < City.objects.using(db_alias).filter(visits=1).count() < 20
    return migration


def set_status(db_alias, status):
    MigrationRecord.objects.using(db_alias).update(status=status)


@pytest.mark.parametrize(("action", "status"), [("resume", "paused"), ("retry", "failed"), ("recover", "running")])
def test_a_person_cannot_continue_with_a_definition_that_does_not_fit(begun, db_alias, action, status):
    set_status(db_alias, status)
    for changed, sentence in CHANGES.items():
        with pytest.raises(InvalidDefinition) as refusal:
            getattr(executor, action)(make(changed), db_alias, AUTHOR, enqueue=False)
        assert sentence in str(refusal.value)
        assert str(refusal.value).endswith("Put the old file back and continue, or restart it from the beginning.")
        assert recorder.get_record(begun.key, db_alias).status == status
    getattr(executor, action)(begun, db_alias, AUTHOR, enqueue=False)
    assert work(begun, db_alias).status == states.APPLIED
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_a_worker_fails_the_run_with_the_same_sentence_and_skips_no_row(begun, db_alias, caplog):
    for changed, sentence in CHANGES.items():
        progress = work(make(changed), db_alias)
        assert progress.status == states.FAILED
        assert sentence in progress.error
        assert progress.error.startswith(f"The run of {begun.key}")
        set_status(db_alias, states.RUNNING)
    assert "Traceback" not in caplog.text
    set_status(db_alias, states.FAILED)
    executor.retry(begun, db_alias, AUTHOR, enqueue=False)
    assert work(begun, db_alias).status == states.APPLIED
    assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}


def test_a_restart_is_the_way_out(begun, db_alias):
    set_status(db_alias, states.PAUSED)
    executor.restart(make(Batch), db_alias, AUTHOR, enqueue=False)
    assert work(make(Batch), db_alias).status == states.APPLIED


def test_failures_are_not_accepted_with_a_definition_that_does_not_fit(begun, db_alias):
    set_status(db_alias, states.PAUSED)
    with pytest.raises(InvalidDefinition, match="was planned for model"):
        accept(make(OtherModel), db_alias, AUTHOR, "whatever", enqueue=False)


def test_the_purpose_names_class_model_and_key(db_alias):
    assert get_kind(make(Mapper)).get_purpose(db_alias) == {
        "kind": "MapperMigration",
        "model": "testapp.City",
        "key": "id (integer)",
        "other_database": None,
    }
    rows = type("Rows", (Mapper,), {"get_queryset": lambda self, alias: CompositeRow.objects.using(alias)})
    assert get_kind(make(rows)).get_purpose(db_alias)["key"] == "tenant (string), number (integer)"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("key", "id (UUID)", "for primary key id (UUID), but its file now has primary key id (integer)"),
        ("key", "code (integer)", "for primary key code (integer), but its file now has primary key id (integer)"),
    ],
)
def test_a_key_of_another_type_or_column_does_not_fit(begun, db_alias, name, value, sentence):
    purpose = {**get_kind(begun).get_purpose(db_alias), name: value}
    MigrationAttempt.objects.using(db_alias).update(planned_for=purpose)
    progress = work(begun, db_alias)
    assert progress.status == states.FAILED
    assert sentence in progress.error


def test_an_attempt_planned_by_a_version_that_noted_no_purpose_takes_the_first(begun, db_alias):
    MigrationAttempt.objects.using(db_alias).update(planned_for=None)
    set_status(db_alias, states.PAUSED)
    executor.resume(make(Mapper), db_alias, AUTHOR, enqueue=False)
    (attempt,) = MigrationAttempt.objects.using(db_alias).all()
    assert attempt.planned_for == get_kind(begun).get_purpose(db_alias)
    MigrationAttempt.objects.using(db_alias).update(planned_for=None)
    assert work(begun, db_alias).status == states.APPLIED
    (attempt,) = MigrationAttempt.objects.using(db_alias).all()
    assert attempt.planned_for == get_kind(begun).get_purpose(db_alias)


@pytest.mark.parametrize("definition", [Mapper, Batch, Custom, Simple, ByHand])
def test_planning_notes_the_purpose(db_alias, definition):
    City.objects.using(db_alias).create(name="one")
    migration = make(definition)
    start(migration, db_alias)
    assert work(migration, db_alias).status == states.APPLIED
    (attempt,) = MigrationAttempt.objects.using(db_alias).all()
    assert attempt.planned_for == get_kind(migration).get_purpose(db_alias)
