"""Totals on Datastore and Firestore: exact for a thousand rows, else estimated from how close together keys lie."""

from __future__ import annotations

import random

import pytest

from massmigration.databases.counting import Count
from massmigration.databases.documents.keys import StoreKeys
from massmigration.databases.registry import get_database
from tests.cloud.app.models import Number, Row, Word
from tests.cloud.filling import make_automatic, store_rows

RANDOM = random.Random(11)


def count_rows(queryset):
    return get_database(queryset.db).count(queryset)


@pytest.fixture
def queries(monkeypatch):
    """Return the list that the limit of every query is noted in."""
    noted = []

    def note(reader, *args, **options):
        noted.append(args[1])
        return fetch(reader, *args, **options)

    fetch = StoreKeys._fetch
    monkeypatch.setattr(StoreKeys, "_fetch", note)
    return noted


def test_up_to_a_thousand_rows_are_counted(db_alias, queries):
    rows = Row.objects.using(db_alias)
    assert count_rows(rows.all()) == Count(0, is_estimate=False)
    store_rows(Row, make_automatic(db_alias, 997), db_alias)
    store_rows(Row, make_automatic(db_alias, 3), db_alias, flag=True)
    queries.clear()
    assert count_rows(rows.all()) == Count(1_000, is_estimate=False)
    assert queries == [1_001]
    store_rows(Row, make_automatic(db_alias, 1), db_alias)
    assert count_rows(rows.all()).is_estimate
    assert count_rows(rows.filter(flag=True)) == Count(3, is_estimate=False)
    assert count_rows(rows.filter(flag=True, visits=5)) == Count(0, is_estimate=False)
    assert count_rows(rows.filter(name__in=["", "no"], flag=True)) == Count(3, is_estimate=False)
    assert count_rows(rows.none()) == Count(0, is_estimate=False)
    assert count_rows(rows.filter(pk__in=[])) == Count(0, is_estimate=False)


def test_more_are_estimated(db_alias, queries):
    store_rows(Row, make_automatic(db_alias, 4_500), db_alias)
    store_rows(Row, make_automatic(db_alias, 1_500), db_alias, flag=True)
    count = count_rows(Row.objects.using(db_alias).all())
    assert count.is_estimate
    assert count.number == pytest.approx(6_000, rel=0.2)
    count = count_rows(Row.objects.using(db_alias).filter(flag=True))
    assert count.is_estimate
    assert count.number == pytest.approx(1_500, rel=0.2)
    assert len(queries) <= 2 * 33
    assert sum(queries) <= 2 * (1_001 + 32 * 64)


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        (Number, range(5, 4_000)),
        (Number, [*range(1, 3_001), *(RANDOM.getrandbits(63) for _ in range(1_000))]),
        (Word, [f"order:{number:07}" for number in range(4_000)]),
    ],
)
def test_keys_that_are_given_by_hand_are_estimated(db_alias, model, keys):
    store_rows(model, keys, db_alias)
    count = count_rows(model.objects.using(db_alias).all())
    assert count.is_estimate
    assert count.number == pytest.approx(4_000, rel=0.2)


def test_what_cannot_be_estimated_is_unknown(db_alias, queries):
    names = ["anna", "bob", "Carl", "zoé", "10", "x_y"]
    words = {f"{RANDOM.choice(names)}.{RANDOM.randrange(10**6)}@{RANDOM.choice(names)}.org" for _ in range(3_000)}
    store_rows(Word, words, db_alias)
    assert count_rows(Word.objects.using(db_alias).all()) == Count(None, is_estimate=True)
    assert len(queries) <= 33
