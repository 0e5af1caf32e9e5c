"""Every kind of primary key comes back exactly, and a run goes through all of its rows, each once."""

from __future__ import annotations

import datetime
import random
import uuid
from contextlib import ExitStack
from decimal import Decimal

import pytest
from django.db import connections
from django.db.models import F
from hypothesis import given
from hypothesis import strategies as st

from massmigration import BatchMigration, MapperMigration, executor, recorder
from massmigration.databases.keys import KEY_TYPES, KeyCodec
from massmigration.databases.ranges import KeyRange
from massmigration.databases.tables import Table
from massmigration.exceptions import InvalidDefinition
from tests.engine import tables
from tests.engine.support import AUTHOR, make, run
from tests.testapp import models

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

UTC = datetime.timezone.utc
START = datetime.datetime(2024, 2, 28, 23, 59, 59, 999_990, tzinfo=UTC)
WORDS = [*"aAäÄzZéeßıI日🙂_-%'\" \\", "ss", "Straße", "a b"]

random.seed(7)
BIGGEST = 2**63 - 1
INTEGERS = [-BIGGEST - 1, -BIGGEST, -(10**12), *range(-45, 46), 10**9, 10**9 + 1, BIGGEST - 1, BIGGEST]
STRINGS = sorted({"", *WORDS, *(a + b for a in WORDS for b in WORDS[::5])})
UUIDS = [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), *(uuid.UUID(int=random.getrandbits(128)) for _ in range(90))]
TENANTS = [(tenant, number) for tenant in ("a", "B", "b", "ü", "Z") for number in range(-10, 10)]

KEYS = {
    models.SparseInt: INTEGERS,
    models.UuidRow: UUIDS,
    models.TextRow: STRINGS,
    tables.CaselessRow: [f"{word}{number}" for word in ("a", "B", "c", "_", "ö") for number in range(20)],
    tables.BytewiseRow: STRINGS,
    tables.AddressRow: [f"10.{n % 7}.{n % 11}.{n}" for n in range(50)] + [f"2001:db8::{n:x}" for n in range(1, 50)],
    models.DecimalRow: [Decimal(n).scaleb(-6) + n * 10**10 for n in range(-45, 45)],
    tables.ShortDecimalRow: [Decimal(n).scaleb(-6) * 1_000_001 for n in range(-45, 45)],
    models.MomentRow: [START + datetime.timedelta(microseconds=n * 3) for n in range(90)],
    models.BinaryRow: [bytes([n % 256, n // 256, 0xFF, 0]) for n in range(90)] + [b"", b"\x00"],
    models.FloatRow: [n / 7 for n in range(-45, 45)] + [5e-324, 1.7e308, -1.7e308],
    tables.DateRow: [datetime.date(1, 1, 1), datetime.date(9999, 12, 31)]
    + [datetime.date(1999, 1, 1) + datetime.timedelta(days=n) for n in range(90)],
    tables.TimeRow: [datetime.time(n % 24, n % 60, n % 59, n * 1000) for n in range(90)],
    tables.DurationRow: [datetime.timedelta(microseconds=n * 10**9 + 1) for n in range(-45, 45)],
    models.CompositeRow: TENANTS,
    tables.WideComposite: [
        (UUIDS[n % 5], START + datetime.timedelta(microseconds=n % 3), Decimal(n).scaleb(-3)) for n in range(-45, 45)
    ],
    tables.CompositeReference: [(n % 3, n * 10**15) for n in range(-45, 45)],
}
"""Some 90 keys of each kind, and the ends of what it can hold."""

ONLY = {
    tables.CaselessRow: "default",
    tables.BytewiseRow: "postgres",
    tables.AddressRow: "postgres",
    models.DecimalRow: "postgres",
}
ALIASES = {"default": [], "postgres": [pytest.mark.needs_postgres]}
CASES = [
    pytest.param(
        model,
        alias,
        id=f"{model.__name__}-{alias}",
        marks=[*marks, pytest.mark.django_db(transaction=True, databases=[alias])],
    )
    for model in KEYS
    for alias, marks in ALIASES.items()
    if ONLY.get(model, alias) == alias
]


def make_rows(model, db_alias, keys):
    rows = [model(pk=key) for key in keys]
    random.shuffle(rows)
    model.objects.using(db_alias).bulk_create(rows)


def get_visits(model, db_alias):
    return set(model.objects.using(db_alias).values_list("visits", flat=True))


def make_definitions(model):
    class Writes(MapperMigration):
        shard_count, batch_size = 4, 25
        update_fields = ["text", "visits"]

        def get_queryset(self, db_alias):
            return model.objects.using(db_alias)

        def operation(self, row, db_alias):
            row.text = f"key {row.pk}"
            row.visits += 1

    class Saves(MapperMigration):
        batch_size = 60

        def get_queryset(self, db_alias):
            return model.objects.using(db_alias).exclude(text="")

        def operation(self, row, db_alias):
            row.visits += 1
            row.save(update_fields=["visits"])

    class Updates(BatchMigration):
        shard_count, batch_size = 2, 35

        def get_queryset(self, db_alias):
            return model.objects.using(db_alias).filter(visits=2)

        def operation(self, rows, db_alias):
            rows.update(visits=F("visits") + 1)

    return make(Writes, "0001_writes"), make(Saves, "0002_saves"), make(Updates, "0003_updates")


@pytest.mark.parametrize(("model", "alias"), CASES)
def test_each_row_is_visited_once_by_each_kind_of_migration(model, alias):
    count = len(KEYS[model])
    with ExitStack() as stack:
        if model._meta.app_label == "extra":
            stack.enter_context(tables.make_tables(alias, model))
        make_rows(model, alias, KEYS[model])
        for done, migration in enumerate(make_definitions(model), start=1):
            progress = run(migration, alias)
            assert (progress.status, progress.processed, progress.total) == ("applied", count, count)
            assert get_visits(model, alias) == {done}
            assert done != 1 or progress.shards == 4
        assert all(row.text == f"key {row.pk}" for row in model.objects.using(alias))


def test_several_thousand_composite_keys_in_one_batch(db_alias):
    class Mapper(MapperMigration):
        batch_size = 3000
        update_fields = ["text"]

        def get_queryset(self, db_alias):
            return models.CompositeRow.objects.using(db_alias).filter(text="")

        def operation(self, row, db_alias):
            row.text = "seen"

    class Batch(BatchMigration):
        batch_size = 3000

        def get_queryset(self, db_alias):
            return models.CompositeRow.objects.using(db_alias).filter(number__gte=0)

        def operation(self, rows, db_alias):
            rows.update(visits=F("visits") + 1)

    keys = [(f"t{number % 3}", number) for number in range(-50, 3000)]
    models.CompositeRow.objects.using(db_alias).bulk_create([models.CompositeRow(pk=key) for key in keys])
    progress = run(make(Mapper, "0001_mapper"), db_alias)
    assert (progress.status, progress.changed) == ("applied", 3050)
    progress = run(make(Batch, "0002_batch"), db_alias)
    assert (progress.status, progress.processed) == ("applied", 3000)
    rows = models.CompositeRow.objects.using(db_alias)
    assert rows.filter(visits=1, number__gte=0, text="seen").count() == 3000
    assert rows.filter(visits=0, number__lt=0, text="seen").count() == 50


def test_composite_windows_begin_at_their_key_in_the_index(db_alias):
    rows = models.CompositeRow.objects.using(db_alias)
    rows.bulk_create([models.CompositeRow(tenant="t", number=number) for number in range(1500)])
    table = Table(rows.all())
    keys = KeyRange(("t", 1000), ("t", 1400))
    assert table.find_window_end(keys, 100) == ("t", 1100)
    assert table.find_window_end(keys, 401) is None
    with connections[db_alias].cursor() as cursor:
        if db_alias == "postgres":
            cursor.execute("ANALYZE testapp_compositerow")
    plan = keys.narrow(table.keys).order_by("pk")[:10].explain()
    expected = "((tenant,number)>(?,?)" if db_alias == "default" else "Index Cond: ((ROW("
    assert expected in plan


def test_one_to_one_keys(db_alias):
    cities = models.City.objects.using(db_alias).bulk_create([models.City(name=str(n)) for n in range(180)])
    models.Profile.objects.using(db_alias).bulk_create([models.Profile(city=city) for city in cities[::2]])
    for done, migration in enumerate(make_definitions(models.Profile), start=1):
        progress = run(migration, db_alias)
        assert (progress.status, progress.processed, progress.total) == ("applied", 90, 90)
        assert get_visits(models.Profile, db_alias) == {done}


@pytest.mark.parametrize(
    "fields", [["detail", "child_visits"], ["title", "visits"], ["detail", "child_visits", "title", "visits"]]
)
def test_children_in_two_tables(db_alias, fields):
    class Migration(MapperMigration):
        shard_count, batch_size = 4, 15
        update_fields = fields

        def get_queryset(self, db_alias):
            return models.Child.objects.using(db_alias)

        def operation(self, child, db_alias):
            for name in fields:
                setattr(child, name, getattr(child, name) + 1 if name.endswith("visits") else f"{name} {child.pk}")

    models.Parent.objects.using(db_alias).bulk_create([models.Parent() for _ in range(12)])
    for _ in range(100):
        models.Child(title="old").save(using=db_alias)
    progress = run(Migration, db_alias)
    assert (progress.status, progress.processed, progress.changed) == ("applied", 100, 100)
    for child in models.Child.objects.using(db_alias):
        assert child.title == (f"title {child.pk}" if "title" in fields else "old")
        assert child.detail == (f"detail {child.pk}" if "detail" in fields else "")
        assert (child.visits, child.child_visits) == (int("visits" in fields), int("child_visits" in fields))
    assert models.Parent.objects.using(db_alias).filter(child=None, visits=0, title="").count() == 12


def test_children_by_statement_and_by_save(db_alias):
    class Batch(BatchMigration):
        batch_size = 40

        def get_queryset(self, db_alias):
            return models.Child.objects.using(db_alias).filter(title="old")

        def operation(self, children, db_alias):
            children.update(visits=F("visits") + 1, child_visits=F("child_visits") + 1)

    class Mapper(MapperMigration):
        batch_size = 40

        def get_queryset(self, db_alias):
            return models.Child.objects.using(db_alias).filter(title="old")

        def operation(self, child, db_alias):
            child.visits += 1
            child.child_visits += 1
            child.save()

    for _ in range(100):
        models.Child(title="old").save(using=db_alias)
    for done, definition in enumerate((Batch, Mapper), start=1):
        progress = run(make(definition, f"000{done}_x"), db_alias)
        assert (progress.status, progress.processed) == ("applied", 100)
        assert set(models.Child.objects.using(db_alias).values_list("visits", "child_visits")) == {(done, done)}


def check_refusal(model, db_alias):
    class Migration(MapperMigration):
        def get_queryset(self, db_alias):
            return model.objects.using(db_alias)

    with pytest.raises(InvalidDefinition) as refusal:
        executor.start(make(Migration), db_alias, AUTHOR, enqueue=False)
    assert recorder.get_record("testapp:0001_test", db_alias) is None
    return str(refusal.value)


def test_an_unknown_type_of_key_is_refused_before_anything_is_written(db_alias):
    assert check_refusal(tables.UnknownKey, db_alias) == (
        "The primary key of extra.UnknownKey is a RangeKeyField, which cannot be gone through by ranges. Types that "
        "can: integer, UUID, string, decimal, float, date and time, date, time, duration, bytes. Use a CustomMigration "
        "instead."
    )


def test_decimals_that_sqlite_rounds_are_refused():
    for model in (models.DecimalRow, tables.ReferenceToDecimal):
        sentence = check_refusal(model, "default")
        assert sentence.endswith(
            "has 20 decimal digits, but SQLite keeps only 15 exactly. Use a CustomMigration, or another database."
        )


VALUES = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "UUID": st.uuids(),
    "string": st.text(),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False),
    "float": st.floats(allow_nan=False),
    "date and time": (st.datetimes(timezones=st.just(UTC)) | st.datetimes()).map(lambda key: key.replace(fold=0)),
    "date": st.dates(),
    "time": st.times().map(lambda key: key.replace(fold=0)),
    "duration": st.timedeltas(),
    "bytes": st.binary(),
}


@pytest.mark.parametrize("key_type", KEY_TYPES, ids=lambda key_type: key_type.name)
@given(data=st.data())
def test_keys_come_back_exactly(key_type, data):
    codec = KeyCodec(models.CompositeRow)
    codec.types = [key_type, key_type]
    pair = data.draw(st.tuples(VALUES[key_type.name], VALUES[key_type.name]))
    again = codec.decode(codec.encode(pair))
    assert again == pair
    assert [(type(part), repr(part)) for part in again] == [(type(part), repr(part)) for part in pair]


def test_a_key_of_another_type_than_its_field_is_refused():
    codec = KeyCodec(models.SparseInt)
    for key in ("1", 1.0, True, None):
        with pytest.raises(InvalidDefinition, match=r"Keys have to be of the field's own Python type\."):
            codec.encode(key)
