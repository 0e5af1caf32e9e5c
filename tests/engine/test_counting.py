"""Rows are counted exactly where that is quick; where it is not, the count is given up and an estimate says so."""

from __future__ import annotations

import pytest
from django.db import connections, transaction
from django.db.models import Count as CountOf

from massmigration.databases.counting import Count
from massmigration.databases.registry import get_database
from massmigration.databases.sql import SqlDatabase
from massmigration.databases.tables import Table
from tests.testapp.models import Child, City, CompositeRow, SparseInt, Tag, TextRow

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

MANY = 100_000
INSERTS = {
    "default": "INSERT INTO testapp_city (name, slug, flag, visits, note) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
    f"SELECT i + 1 FROM n WHERE i < {MANY}) SELECT 'city ' || i, '', i % 10 = 0, 0, '' FROM n",
    "postgres": "INSERT INTO testapp_city (name, slug, flag, visits, note) "
    f"SELECT 'city ' || i, '', i % 10 = 0, 0, '' FROM generate_series(1, {MANY}) AS i",
}


def count_rows(queryset, *seconds):
    return get_database(queryset.db).count(queryset, *seconds)


def estimate_table(rows):
    database = get_database(rows.db)
    assert isinstance(database, SqlDatabase)
    return database.estimate_table(rows)


def make_many(db_alias):
    """Make many rows; on SQLite their numbers begin far from one, as after a purge of old ones."""
    City.objects.using(db_alias).create(pk=10**7).delete()
    with connections[db_alias].cursor() as cursor:
        cursor.execute(INSERTS[db_alias])
        cursor.execute("ANALYZE testapp_city")


def get_slow_rows(db_alias):
    """Return a queryset whose count takes much longer than a thousandth of a second."""
    return City.objects.using(db_alias).filter(name__iregex=r"^(c|i|t|y| )+(\d*)$")


def test_a_quick_count_is_exact(db_alias):
    cities = City.objects.using(db_alias)
    made = cities.bulk_create([City(name=str(number), flag=number < 7) for number in range(20)])
    Tag.objects.using(db_alias).bulk_create([Tag(city=city, word=word) for city in made[:8] for word in "aabbc"])
    CompositeRow.objects.using(db_alias).bulk_create([CompositeRow(tenant="t", number=n) for n in range(9)])
    Child(title="t").save(using=db_alias)
    for rows, number in (
        (cities.all(), 20),
        (cities.filter(flag=True), 7),
        (cities.none(), 0),
        (cities.filter(name="no"), 0),
        (cities.filter(tags__word__in=["a", "b"]), 8),
        (cities.filter(tags__word__in=["a", "b"]).distinct(), 8),
        (cities.filter(tags__word="a").filter(tags__word="b"), 8),
        (cities.annotate(n=CountOf("tags")).filter(n__gt=1), 8),
        (cities.annotate(n=CountOf("tags")), 20),
        (cities.exclude(tags__word="a"), 12),
        (cities.select_related("profile").prefetch_related("tags"), 20),
        (CompositeRow.objects.using(db_alias).all(), 9),
        (Child.objects.using(db_alias).filter(title="t"), 1),
    ):
        assert count_rows(rows) == Count(number, is_estimate=False)
        assert count_rows(Table(rows).queryset) == Count(number, is_estimate=False)


def test_a_slow_count_is_given_up_and_estimated(db_alias):
    make_many(db_alias)
    rows = get_slow_rows(db_alias)
    count = count_rows(rows, 0.02)
    assert count.is_estimate
    assert count.number is not None
    assert 0 <= count.number <= MANY * 1.1
    assert count_rows(City.objects.using(db_alias).filter(flag=True)) == Count(MANY // 10, is_estimate=False)
    assert rows.filter(pk__lt=0).count() == 0
    assert rows.count() == MANY  # and no limit is left behind


def test_a_count_that_is_given_up_spoils_no_transaction(db_alias):
    make_many(db_alias)
    connection = connections[db_alias]
    with transaction.atomic(using=db_alias):
        if db_alias == "postgres":
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = '17s'")
        City.objects.using(db_alias).create(name="written before")
        assert count_rows(get_slow_rows(db_alias), 0.02).is_estimate
        assert count_rows(City.objects.using(db_alias).filter(flag=True)).number == MANY // 10
        City.objects.using(db_alias).create(name="written after")
        if db_alias == "postgres":
            with connection.cursor() as cursor:
                cursor.execute("SHOW statement_timeout")
                assert cursor.fetchone() == ("17s",)
    assert City.objects.using(db_alias).filter(name__startswith="written").count() == 2
    if db_alias == "postgres":
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("0",)


def test_what_a_count_raises_for_another_reason_is_not_hidden(db_alias):
    rows = City.objects.using(db_alias).extra(where=["no_such_column = 1"])
    with pytest.raises(Exception, match="no_such_column"):
        count_rows(rows)


def test_the_size_of_a_table(db_alias):
    assert estimate_table(City.objects.using(db_alias)) == 0
    make_many(db_alias)
    assert estimate_table(City.objects.using(db_alias)) == pytest.approx(MANY, rel=0.05)
    TextRow.objects.using(db_alias).bulk_create([TextRow(pk=str(number)) for number in range(50)])
    assert estimate_table(TextRow.objects.using(db_alias)) == 50


def test_keys_that_are_given_by_hand_are_no_number_of_rows(db_alias):
    rows = SparseInt.objects.using(db_alias)
    with connections[db_alias].cursor() as cursor:
        cursor.execute(
            INSERTS[db_alias]
            .replace("testapp_city (name, slug, flag, visits, note)", "testapp_sparseint (id, text, visits)")
            .replace("'city ' || i, '', i % 10 = 0, 0, ''", "9000000000000000000 + i, 'city ' || i, 0")
        )
    count = count_rows(rows.filter(text__iregex=r"^(c|i|t|y| )+(\d*)$"), 0.02)
    assert count.is_estimate
    assert count.number is None or count.number <= MANY * 1.1
