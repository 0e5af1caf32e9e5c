"""What an operation set is written exactly, in one statement per batch, and nothing else is."""

from __future__ import annotations

import datetime
import re
import sqlite3
import uuid
from decimal import Decimal
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage
from django.db import DatabaseError, connections, models
from django.db.models import F, Value
from django.db.models.functions import Upper
from django.test.utils import CaptureQueriesContext
from django.utils.safestring import mark_safe

from massmigration import BatchMigration, MapperMigration
from massmigration.databases.registry import get_database
from massmigration.databases.sqlite import Database as SQLite
from massmigration.databases.writeback import get_fields
from tests.engine import tables
from tests.engine.support import make, run
from tests.engine.tables import Everything
from tests.testapp.models import Child, City, CompositeRow, JsonRow, UuidRow

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

UTC = datetime.timezone.utc
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
VALUES: dict[str, list[Any]] = {
    "text": [
        "",
        'it\'s "quoted"',
        "two\nlines\r\n\ttab",
        "🙂 ü 日本",
        "100 % %s %(x)s {}",
        "\\ '' \\' $1 ?",
        "x" * 70_000,
    ],
    "char": ["", "NULL", "{1,2}", '{"a"}', "é" * 30],
    "slug": ["a-b", ""],
    "small": [-(2**15), 0, 2**15 - 1],
    "number": [-(2**31), 2**31 - 1],
    "big": [-(2**63), 2**63 - 1],
    "positive": [0, 2**31 - 1],
    "yes": [True, False],
    "maybe": [True, False],
    "decimal": [Decimal("0.001"), Decimal("-99999999.999"), Decimal("1")],
    "real": [0.1, -1e300, 5e-324, 1 / 3],
    "day": [datetime.date(1, 1, 1), datetime.date(9999, 12, 31)],
    "moment": [datetime.datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC), datetime.datetime(1970, 1, 1, 5, tzinfo=EAST)],
    "clock": [datetime.time(0), datetime.time(23, 59, 59, 999_999)],
    "span": [datetime.timedelta(days=-3, microseconds=1), datetime.timedelta(0)],
    "data": [{}, [], {"a": [1, {"b": None}], "ü": "🙂 ' \" \\ %s"}, "text", 0, False, 1.5, [None, True]],
    "token": [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)],
    "blob": [b"", b"\x00\xff'\"\\", bytes(range(256))],
    "address": ["10.0.0.1", "2001:db8::1"],
    "file": ["a/b.txt", "it's.txt"],
    "city_id": [1, 2**62],
}


def get_updates(queries):
    return [
        query["sql"]
        for query in queries
        if query["sql"].startswith("UPDATE") and "massmigration_" not in query["sql"].partition("SET")[0]
    ]


def test_every_type_is_written_in_one_statement(db_alias):
    with tables.make_tables(db_alias, Everything):
        rows = Everything.objects.using(db_alias)
        rows.bulk_create([Everything() for _ in range(2 * 8)])
        objects = list(rows.order_by("pk"))
        for number, obj in enumerate(objects[:8]):
            for name, values in VALUES.items():
                setattr(obj, name, values[number % len(values)])
        fields = get_fields(Everything, VALUES, "x")
        for _ in range(2):  # from empty to full, and back again
            with CaptureQueriesContext(connections[db_alias]) as queries:
                get_database(db_alias).write_objects(objects, fields)
            assert len(queries) == 1
            for obj, stored in zip(objects, rows.order_by("pk"), strict=True):
                for name in VALUES:
                    new, old = getattr(stored, name), getattr(obj, name)
                    if name == "file":  # Django reads no file back as an empty name
                        new, old = new.name or "", old.name or ""
                    new = bytes(new) if isinstance(new, memoryview) else new
                    assert (new, type(new)) == (old, type(old)), name
            objects = objects[8:] + objects[:8]
            for obj in objects:
                for field in fields:
                    setattr(obj, field.attname, None if field.null else field.get_default())


def test_what_does_not_fit_is_refused_as_usual(db_alias):
    with tables.make_tables(db_alias, Everything):
        rows = Everything.objects.using(db_alias)
        rows.bulk_create([Everything(), Everything()])
        wrong = {"postgres": {"char": "x" * 31, "text": "a\0b", "decimal": Decimal(10**10), "number": 2**31}}
        for name, value in {**wrong.get(db_alias, {}), "char": None}.items():
            objects = list(rows.order_by("pk"))
            setattr(objects[0], name, value)
            with pytest.raises((DatabaseError, ValueError)):
                get_database(db_alias).write_objects(objects, get_fields(Everything, [name], "x"))
        assert not rows.exclude(char="", text=None, decimal=None, number=None).exists()


def make_migration(names, change, get_rows=JsonRow.objects.using, **attributes):
    class Migration(MapperMigration):
        update_fields = names

        def get_queryset(self, db_alias):
            return get_rows(db_alias)

        def operation(self, obj, db_alias):
            change(obj)

    for name, value in attributes.items():
        setattr(Migration, name, value)
    return Migration


def test_only_what_changed_is_written(db_alias):
    rows = City.objects.using(db_alias)
    rows.bulk_create([City(name=f"{number}", slug="x" if number < 30 else "") for number in range(40)])

    def change(city):
        city.slug = mark_safe("x")

    for number, all_of_them in enumerate((False, True)):
        definition = make_migration(["slug"], change, City.objects.using, write_unchanged=all_of_them, batch_size=40)
        with CaptureQueriesContext(connections[db_alias]) as queries:
            progress = run(make(definition, f"{number:04}_x"), db_alias)
        assert (progress.status, progress.processed) == ("applied", 40)
        assert progress.changed == (0 if all_of_them else 10)
        assert [len(re.findall(r"\bx\b", sql)) for sql in get_updates(queries)] == [40 if all_of_them else 10]
        assert bool(progress.warning) is all_of_them


def test_json_in_a_run(db_alias):
    JsonRow.objects.using(db_alias).bulk_create([JsonRow(data={"n": number, "tags": []}) for number in range(50)])

    def change(row):
        if row.data["n"] % 2:
            row.data["tags"].append("odd")

    progress = run(make_migration(["data"], change), db_alias)
    assert (progress.status, progress.changed) == ("applied", 25)
    for row in JsonRow.objects.using(db_alias):
        assert row.data["tags"] == (["odd"] if row.data["n"] % 2 else [])


def test_a_changed_primary_key_is_a_failure_and_not_another_rows_update(db_alias):
    cities = City.objects.using(db_alias).bulk_create([City(name="a"), City(name="b")])

    def change(city):
        city.slug = "x"
        city.pk = cities[1].pk

    progress = run(make_migration(["slug"], change, City.objects.using), db_alias)
    assert progress.status == "failed"
    assert f"The operation changed the primary key of testapp.City {cities[0].pk} to {cities[1].pk}" in progress.error
    assert set(City.objects.using(db_alias).values_list("slug", flat=True)) == {""}


def test_expressions_as_values(db_alias):
    rows = City.objects.using(db_alias)
    rows.bulk_create([City(name=f"c{number}", visits=number) for number in range(600)])

    def change(city):
        city.visits = F("visits") + 1
        city.slug = Upper("name") if city.visits != "x" and int(city.name[1:]) % 2 else "plain"

    with CaptureQueriesContext(connections[db_alias]) as queries:
        progress = run(make_migration(["visits", "slug"], change, City.objects.using, batch_size=600), db_alias)
    assert (progress.status, progress.changed) == ("applied", 600)
    for city in rows:
        number = int(city.name[1:])
        assert (city.visits, city.slug) == (number + 1, f"C{number}" if number % 2 else "plain")
    assert len(get_updates(queries)) <= 6


def test_json_null_and_no_value_are_different(db_alias):
    with tables.make_tables(db_alias, Everything):
        rows = Everything.objects.using(db_alias)
        rows.bulk_create([Everything(data={}), Everything(data={})])
        objects = list(rows.order_by("pk"))
        objects[0].data, objects[1].data = None, Value(None, models.JSONField())
        get_database(db_alias).write_objects(objects, get_fields(Everything, ["data"], "x"))
        assert rows.filter(data__isnull=True).get().pk == objects[0].pk
        assert rows.filter(data=Value(None, models.JSONField())).get().pk == objects[1].pk


def test_fields_that_set_themselves(db_alias):
    with tables.make_tables(db_alias, Everything):
        rows = Everything.objects.using(db_alias)
        rows.bulk_create([Everything(number=number) for number in range(4)])
        long_ago = datetime.datetime(2001, 1, 1, tzinfo=UTC)
        rows.update(changed_at=long_ago)

        def change(row):
            if row.number % 2:
                row.text = "odd"

        for number, names in enumerate((["text"], ["text", "changed_at"])):
            rows.update(text="")
            run(make(make_migration(names, change, Everything.objects.using), f"{number:04}_x"), db_alias)
            for row in rows:
                assert row.text == ("odd" if row.number % 2 else "")
                assert (row.changed_at != long_ago) is ("changed_at" in names and row.number % 2 == 1)


def test_a_new_file_is_saved(db_alias):
    storage = InMemoryStorage()
    field = Everything._meta.get_field("file")
    before, field.storage = field.storage, storage
    try:
        with tables.make_tables(db_alias, Everything):
            row = Everything.objects.using(db_alias).create()
            row.file = ContentFile(b"content", name="a.txt")
            get_database(db_alias).write_objects([row], [field])
            name = Everything.objects.using(db_alias).get().file.name
            assert storage.open(name).read() == b"content"
    finally:
        field.storage = before


@pytest.mark.needs_postgres
def test_arrays():
    postgres_fields = pytest.importorskip("django.contrib.postgres.fields")

    class Arrays(tables.Extra):
        words = postgres_fields.ArrayField(models.CharField(max_length=9), default=list)
        numbers = postgres_fields.ArrayField(postgres_fields.ArrayField(models.IntegerField()), null=True)

    with tables.make_tables("postgres", Arrays):
        rows = Arrays.objects.using("postgres")
        rows.bulk_create([Arrays(words=[str(number)]) for number in range(100)])

        def change(row):
            row.words.append("it's {n}")
            row.numbers = [[1, 2], [3, int(row.words[0])]]

        with CaptureQueriesContext(connections["postgres"]) as queries:
            progress = run(
                make_migration(["words", "numbers"], change, Arrays.objects.using, batch_size=100), "postgres"
            )
        assert (progress.status, progress.changed, len(get_updates(queries))) == ("applied", 100, 1)
        for row in rows:
            assert row.words == [row.words[0], "it's {n}"]
            assert row.numbers == [[1, 2], [3, int(row.words[0])]]


@pytest.mark.skipif(not hasattr(sqlite3.Connection, "setlimit"), reason="needs Python 3.11")
def test_more_rows_than_sqlite_has_parameters(monkeypatch):
    """With a tenth of them, so that a tenth of the rows is enough."""
    monkeypatch.setattr(SQLite, "max_parameters", SQLite.max_parameters // 10)
    connection = connections["default"]
    connection.ensure_connection()
    before = connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, SQLite.max_parameters)
    try:
        City.objects.bulk_create([City(name=str(number)) for number in range(3_300)])
        CompositeRow.objects.bulk_create([CompositeRow(tenant="t", number=number) for number in range(1_700)])

        def change(row):
            row.visits += 1

        for number, rows in enumerate((City.objects.using, CompositeRow.objects.using)):

            class Batch(BatchMigration):
                batch_size = 4_000

                def get_queryset(self, db_alias, rows=rows):
                    return rows(db_alias)

                def operation(self, rows, db_alias):
                    rows.update(visits=F("visits") + 1)

            mapper = make_migration(["visits"], change, rows, batch_size=4_000, until_empty=None)
            assert run(make(mapper, f"000{number}_mapper"), "default").status == "applied"
            assert run(make(Batch, f"000{number}_batch"), "default").status == "applied"
            assert set(rows("default").values_list("visits", flat=True)) == {2}
    finally:
        connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, before)


@pytest.mark.parametrize("model", [City, UuidRow, CompositeRow])
def test_sqlite_finds_the_rows_by_their_key(model):
    model.objects.bulk_create(
        [CompositeRow(tenant="t", number=number) if model is CompositeRow else model() for number in range(300)]
    )
    connection = connections["default"]
    for statistics in (False, True):
        with connection.cursor() as cursor:
            if statistics:
                cursor.execute("ANALYZE")
        for count in (1, 300):
            objects = list(model.objects.all()[:count])
            with CaptureQueriesContext(connection) as queries:
                get_database("default").write_objects(objects, get_fields(model, ["visits"], "x"))
            (query,) = queries
            with connection.cursor() as cursor:
                cursor.execute("EXPLAIN QUERY PLAN " + query["sql"])
                plan = [row[3] for row in cursor.fetchall()]
                assert any(line.startswith(f"SEARCH {model._meta.db_table} USING") for line in plan), plan
                assert not any(line.startswith(f"SCAN {model._meta.db_table}") for line in plan), plan
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE sqlite_stat1")
        cursor.execute("DROP TABLE IF EXISTS sqlite_stat4")


def test_thousands_of_rows_are_written_in_one_statement_or_two(db_alias):
    rows = City.objects.using(db_alias)
    rows.bulk_create([City(name=str(number)) for number in range(12_000)])
    objects = list(rows)
    for city in objects:
        city.slug, city.note = f"slug {city.name}", "note"
    with CaptureQueriesContext(connections[db_alias]) as queries:
        get_database(db_alias).write_objects(objects, get_fields(City, ["slug", "note"], "x"))
    assert len(queries) == (2 if db_alias == "default" else 1)  # SQLite takes 32,766 parameters at most
    assert rows.filter(note="note", slug__startswith="slug").count() == 12_000


CONTROL = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK")


def count_queries_of_batches(definition, db_alias):
    """Return the numbers of statements between two batches, those that steer transactions left out."""
    counts, seen = [], [0]
    connection = connections[db_alias]
    with CaptureQueriesContext(connection) as queries:

        def note():
            work = [query for query in queries.captured_queries if not query["sql"].startswith(CONTROL)]
            counts.append(len(work) - seen[0])
            seen[0] = len(work)

        progress = run(definition, db_alias, on_progress=note)
    assert progress.status == "applied"
    return counts[2:-3]  # the first and last hold the planning and the finish too


QUERIES = {
    # where the run stands, end of the window, objects, write, those left, cursor; PostgreSQL: bound of idling
    "mapper": (6, 7),
    # where the run stands, end of the window, objects, cursor
    "mapper that saves nothing": (4, 5),
    # where the run stands, end of the window, keys, the author's statement, cursor
    "batch": (5, 6),
    "composite": (6, 7),
    # two tables are written, and on PostgreSQL two are locked before
    "child": (7, 11),
    # GROUP BY cannot be locked
    "grouped": (6, 9),
}


def make_rows(kind, number, count, db_alias):
    if kind == "child":
        for _ in range(count):
            Child().save(using=db_alias)
    elif kind == "composite":
        rows = [CompositeRow(tenant=str(number), number=n) for n in range(count)]
        CompositeRow.objects.using(db_alias).bulk_create(rows)
    else:
        City.objects.using(db_alias).bulk_create([City(name=f"c{n}") for n in range(count)])


def get_rows(kind, db_alias):
    model: Any = {"child": Child, "composite": CompositeRow}.get(kind, City)
    rows = model.objects.using(db_alias).filter(visits=0)
    return rows.annotate(n=models.Count("tags")).filter(n=0) if kind == "grouped" else rows


@pytest.mark.parametrize("kind", QUERIES)
def test_queries_per_batch_are_few_and_do_not_grow_with_the_table(db_alias, kind):
    def change(row):
        row.visits += 1
        row.child_visits = 1

    class Batch(BatchMigration):
        def get_queryset(self, db_alias):
            return get_rows(kind, db_alias)

        def operation(self, rows, db_alias):
            rows.update(visits=1)

    names = {"child": ["child_visits", "visits"], "mapper that saves nothing": []}.get(kind, ["visits"])
    mapper = make_migration(names, change, lambda alias: get_rows(kind, alias))
    seen = set()
    for number, count in enumerate((300, 3000) if kind in ("mapper", "batch") else (100, 300)):
        make_rows(kind, number, count, db_alias)
        definition = Batch if kind == "batch" else mapper
        definition.batch_size, definition.shard_count = count // 10, 1
        counts = count_queries_of_batches(make(definition, f"{number:04}_x"), db_alias)
        assert len(counts) >= 5
        seen |= set(counts)
    usual = QUERIES[kind][db_alias == "postgres"]
    # PostgreSQL: one more to look at the keys first, where most rows of a window do not match, or the range ends.
    assert seen <= {usual, usual + (db_alias == "postgres")}
    assert counts.count(usual) > len(counts) // 2
