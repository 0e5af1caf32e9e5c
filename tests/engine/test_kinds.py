"""Each kind of migration runs to APPLIED on each database and visits each row once."""

from __future__ import annotations

import pytest
from django.db.models import F

from massmigration import BaseMigration, BatchMigration, CustomMigration, MapperMigration, SimpleMigration
from massmigration.engine.kinds import KINDS, get_kind
from tests.engine.support import make, run
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


def make_cities(db_alias: str, count: int = 2500) -> None:
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(count))


def get_visits(db_alias: str) -> list[int]:
    return sorted(set(City.objects.using(db_alias).values_list("visits", flat=True)))


def test_simple(db_alias):
    class Migration(SimpleMigration):
        def operation(self, db_alias):
            City.objects.using(db_alias).update(visits=F("visits") + 1)

    make_cities(db_alias)
    progress = run(Migration, db_alias)
    assert progress.status == "applied"
    assert (progress.processed, progress.total) == (1, 1)
    assert get_visits(db_alias) == [1]


def test_mapper_with_update_fields(db_alias):
    class Migration(MapperMigration):
        update_fields = ["slug", "visits"]

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def operation(self, city, db_alias):
            city.slug = city.name.lower()
            city.visits += 1

    make_cities(db_alias)
    progress = run(Migration, db_alias)
    assert progress.status == "applied"
    assert (progress.processed, progress.changed, progress.total, progress.failed) == (2500, 2500, 2500, 0)
    assert progress.percent == 100
    assert get_visits(db_alias) == [1]
    assert all(city.slug == city.name.lower() for city in City.objects.using(db_alias))


def test_mapper_that_saves_by_itself(db_alias):
    class Migration(MapperMigration):
        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def operation(self, city, db_alias):
            city.visits += 1
            city.save()

    make_cities(db_alias, 700)
    progress = run(Migration, db_alias)
    assert progress.status == "applied"
    assert (progress.processed, progress.changed) == (700, None)
    assert get_visits(db_alias) == [1]


def test_batch(db_alias):
    class Migration(BatchMigration):
        def get_queryset(self, db_alias):
            return City.objects.using(db_alias)

        def operation(self, queryset, db_alias):
            queryset.update(visits=F("visits") + 1)

    make_cities(db_alias)
    progress = run(Migration, db_alias)
    assert progress.status == "applied"
    assert progress.processed == 2500
    assert get_visits(db_alias) == [1]


def test_batch_that_deletes(db_alias):
    class Migration(BatchMigration):
        batch_size = 300

        def get_queryset(self, db_alias):
            return City.objects.using(db_alias).filter(flag=True)

        def operation(self, queryset, db_alias):
            queryset.delete()

    make_cities(db_alias)
    City.objects.using(db_alias).filter(pk__in=City.objects.using(db_alias).values("pk")[:1200]).update(flag=True)
    progress = run(Migration, db_alias)
    assert progress.status == "applied"
    assert progress.processed == 1200
    assert City.objects.using(db_alias).count() == 1300


def test_custom(db_alias):
    class Migration(CustomMigration):
        def get_shards(self, db_alias):
            return [{"letter": "a", "count": 450}, {"letter": "b", "count": 30}, {"letter": "c", "count": 0}]

        def get_items(self, shard, cursor, db_alias):
            for number in range(0 if cursor is None else cursor + 1, shard["count"]):
                yield number, f"{shard['letter']}{number}"

        def operation(self, item, db_alias):
            City.objects.using(db_alias).create(name=item)

        def get_total(self, shard, db_alias):
            return shard["count"]

    progress = run(Migration, db_alias)
    assert progress.status == "applied"
    assert (progress.processed, progress.total, progress.shards, progress.shards_done) == (480, 480, 3, 3)
    names = list(City.objects.using(db_alias).values_list("name", flat=True))
    assert len(names) == len(set(names)) == 480


def test_base_that_finishes_in_launch(db_alias):
    class Migration(BaseMigration):
        def launch(self, db_alias):
            self.mark_as_started(db_alias)
            City.objects.using(db_alias).update(visits=F("visits") + 1)
            self.mark_as_finished(db_alias)

    make_cities(db_alias, 10)
    progress = run(Migration, db_alias)
    assert progress.status == "applied"
    assert get_visits(db_alias) == [1]


def test_base_that_reports_an_error(db_alias):
    class Migration(BaseMigration):
        def launch(self, db_alias):
            self.mark_as_errored(db_alias, "the other side is down")

    progress = run(Migration, db_alias)
    assert (progress.status, progress.reason, progress.error) == (
        "failed",
        "operation_error",
        "the other side is down",
    )


class WithFields(MapperMigration):
    update_fields = ["visits"]


ANSWERS = {
    BaseMigration: ("", True, False, False, False),
    SimpleMigration: ("", False, False, False, False),
    MapperMigration: ("rows", False, True, True, False),
    WithFields: ("rows", False, True, True, True),
    BatchMigration: ("rows", False, True, True, False),
    CustomMigration: ("items", False, True, False, False),
}


@pytest.mark.parametrize("definition", ANSWERS, ids=lambda definition: definition.__name__)
def test_each_kind_answers_for_itself(definition):
    kind = get_kind(make(type("Migration", (definition,), {})))
    answers = (kind.unit, kind.is_launched, kind.has_objects, kind.finds_by_key, kind.knows_changed)
    assert answers == ANSWERS[definition]


def test_every_definition_has_a_kind_of_its_own():
    assert [kind.definition for kind in KINDS] == [each for each in ANSWERS if each is not WithFields]
    assert all(type(get_kind(make(kind.definition))) is kind for kind in KINDS)
