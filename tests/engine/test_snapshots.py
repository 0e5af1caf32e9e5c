"""What an operation changed is noticed, however deep it lies, and so is what others changed meanwhile."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal

import pytest
from django.db import connections, models, transaction
from django.db.models import F
from django.utils.safestring import mark_safe

from massmigration.databases.registry import get_database
from massmigration.databases.writeback import get_fields
from massmigration.engine.snapshots import Snapshot
from massmigration.models import MigrationShard
from tests.conftest import needs_postgres
from tests.engine.support import in_threads
from tests.testapp.models import City, CompositeRow, JsonRow

UTC = datetime.timezone.utc
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["list"].append(3),
        lambda data: data["dict"].update(new=None),
        lambda data: data["dict"]["deep"].clear(),
        lambda data: data.update(one=True),
        lambda data: data.update(one=1.0),
        lambda data: data["list"].__setitem__(0, 1),
        lambda data: data.pop("null"),
    ],
)
def test_json_that_is_changed_in_place_is_noticed(change):
    obj = JsonRow(pk=1, data={"list": [True, 2], "dict": {"deep": {"a": 1}}, "one": 1, "null": None})
    fields = get_fields(JsonRow, ["data"], "x")
    snapshot = Snapshot([obj], fields)
    assert snapshot.find_changed([obj]) == []
    change(obj.data)
    assert snapshot.find_changed([obj]) == [obj]


class Letter(models.TextChoices):
    A = "a"


class Number(models.IntegerChoices):
    ONE = 1


class Array(list):
    """As arrays of numbers do, it compares element by element."""

    def __eq__(self, other):
        raise ValueError("The truth value of an array with more than one element is ambiguous.")

    __hash__ = None


@pytest.mark.parametrize(
    ("old", "new", "is_changed"),
    [
        ("a", mark_safe("a"), False),
        ("a", Letter.A, False),
        (1, Number.ONE, False),
        (None, None, False),
        (None, "", True),
        ("", None, True),
        (0, False, True),
        (1, F("x"), True),
        ([1], (1,), False),
        (None, Array(), True),
        (Decimal("1.0"), Decimal("1.00"), False),
        (datetime.datetime(2024, 1, 1, 5, 30, tzinfo=EAST), datetime.datetime(2024, 1, 1, tzinfo=UTC), False),
    ],
)
def test_what_counts_as_changed(old, new, is_changed):
    obj = JsonRow(pk=1, data=old)
    snapshot = Snapshot([obj], get_fields(JsonRow, ["data"], "x"))
    obj.data = new
    assert bool(snapshot.find_changed([obj])) is is_changed


def test_bytes_as_psycopg2_gives_them():
    obj = JsonRow(pk=1, data=memoryview(b"a"))
    snapshot = Snapshot([obj], get_fields(JsonRow, ["data"], "x"))
    assert snapshot.find_changed([obj]) == []
    obj.data = b"b"
    assert snapshot.find_changed([obj]) == [obj]


def test_another_primary_key_is_refused():
    city = City(pk=1)
    snapshot = Snapshot([city], get_fields(City, ["slug"], "x"))
    city.pk = None
    with pytest.raises(ValueError, match=r"changed the primary key of testapp.City 1 to None, but with update_fields"):
        snapshot.find_changed([city])


def find_stale(snapshot, objects, alias):
    """Compare as the engine does, in a transaction."""
    with transaction.atomic(using=alias):
        return snapshot.find_stale(objects, alias)


@pytest.mark.django_db(transaction=True, databases=["default", "postgres"])
def test_rows_that_others_changed_or_deleted_are_stale(db_alias):
    rows = City.objects.using(db_alias)
    cities = rows.bulk_create([City(name=str(number), note="a") for number in range(5)])
    objects = list(rows.only("name", "flag").order_by("pk"))
    snapshot = Snapshot(objects, get_fields(City, ["flag"], "x"))
    objects[0].flag = True
    assert find_stale(snapshot, objects, db_alias) == set()
    rows.filter(pk=cities[1].pk).update(note="not loaded")
    assert find_stale(snapshot, objects, db_alias) == set()
    assert objects[3].note == "a"  # loaded lazily
    rows.filter(pk=cities[3].pk).update(note="new")
    assert find_stale(snapshot, objects, db_alias) == {cities[3].pk}
    rows.filter(pk=cities[3].pk).update(note="a")
    rows.filter(pk=cities[2].pk).update(name="new")
    rows.filter(pk=cities[4].pk).delete()
    assert find_stale(snapshot, objects, db_alias) == {cities[2].pk, cities[4].pk}
    assert find_stale(snapshot, objects[:4], db_alias) == {cities[2].pk}
    assert find_stale(snapshot, [], db_alias) == set()


@needs_postgres  # SQLite knows no NaN
@pytest.mark.django_db(transaction=True, databases=["default", "postgres"])
def test_a_row_with_a_number_that_equals_nothing_is_not_stale():
    fields = get_fields(MigrationShard, ["number"], "x")
    for key in ("one", "two"):
        MigrationShard(pk=key, attempt_uuid=uuid.uuid4(), key="x", kind="range", rate=float("nan")).save(
            using="postgres"
        )
    rows = list(MigrationShard.objects.using("postgres").order_by("pk"))
    snapshot = Snapshot(rows, fields)
    MigrationShard.objects.using("postgres").filter(pk="two").update(rate=1)
    with transaction.atomic(using="postgres"):
        assert snapshot.find_stale(rows, "postgres") == {"two"}


@pytest.mark.django_db(transaction=True, databases=["default", "postgres"])
def test_thousands_of_composite_keys_are_compared(db_alias):
    rows = CompositeRow.objects.using(db_alias)
    rows.bulk_create([CompositeRow(tenant="t", number=number) for number in range(5000)])
    objects = list(rows.order_by("pk"))
    snapshot = Snapshot(objects, get_fields(CompositeRow, ["text"], "x"))
    rows.filter(number=4321).update(text="new")
    assert find_stale(snapshot, objects, db_alias) == {("t", 4321)}


@pytest.mark.django_db(transaction=True, databases=["default", "postgres"])
def test_sqlite_tells_whether_another_connection_wrote():
    assert get_database("postgres").data_version() is None
    before = get_database("default").data_version()
    City.objects.create(name="ours")
    assert get_database("default").data_version() == before
    in_threads(lambda: City.objects.create(name="theirs"))
    after = get_database("default").data_version()
    assert after != before
    connections["default"].close()
    assert get_database("default").data_version() not in (before, after)
