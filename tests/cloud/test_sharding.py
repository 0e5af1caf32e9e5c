"""Key ranges on Datastore and Firestore are balanced, cover everything, and are found with a few queries."""

from __future__ import annotations

import itertools
import random
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from massmigration import BatchMigration, MapperMigration, recorder
from massmigration.databases.documents.keys import StoreKeys
from massmigration.databases.documents.keyspace import (
    HIGHEST_INTEGER,
    LOWEST_INTEGER,
    PaddedIntegers,
    Texts,
    get_keyspace,
)
from massmigration.databases.keys import KeyCodec
from massmigration.databases.ranges import KeyRange
from massmigration.engine import sharding
from massmigration.engine.kinds import get_kind
from massmigration.engine.sharding import plan_ranges
from massmigration.engine.tables import get_table
from massmigration.models import MigrationShard
from tests.cloud.app.models import Number, Row, Token, Word
from tests.cloud.filling import make_automatic, store_rows
from tests.engine.support import claim_range, make, start

ROWS = 3_000
RANDOM = random.Random(7)
at_any_speed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # of the machine
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def draw_time_ordered_uuid(number: int) -> uuid.UUID:
    """Return a UUID of version 7: 48 bits of milliseconds, then chance."""
    milliseconds = 1_700_000_000_000 + number * 3_000_000
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | RANDOM.getrandbits(62))


KEYS: dict[str, tuple[Any, Any, float]] = {
    "automatic": (Row, lambda db_alias: make_automatic(db_alias, ROWS), 2),
    "random UUIDs": (Token, lambda _: [uuid.UUID(int=RANDOM.getrandbits(128), version=4) for _ in range(ROWS)], 3),
    "time-ordered UUIDs": (Token, lambda _: [draw_time_ordered_uuid(number) for number in range(ROWS)], 3),
    "strings with a prefix": (Word, lambda _: [f"customer-{number:06}" for number in range(ROWS)], 3),
    "hashes": (Word, lambda _: [f"{RANDOM.getrandbits(160):040x}" for _ in range(ROWS)], 3),
    "words": (
        Word,
        lambda _: {
            RANDOM.choice(["", "é", "Ω", "\uff5e", "😀"]) + "".join(RANDOM.choices("aeinrst", k=6)) for _ in range(ROWS)
        },
        3,
    ),
    "clustered": (Number, lambda _: [*range(1, 2_501), *(RANDOM.getrandbits(63) for _ in range(500))], 3),
    "on both sides of zero": (Number, lambda _: [key for key in range(-1_500, 1_501) if key], 3),
}


@pytest.fixture
def queries(monkeypatch):
    """Return the list that every query of the planning is noted in, on its way to the store."""
    noted = []

    def note(reader, *args, **options):
        noted.append(args[1])
        return fetch(reader, *args, **options)

    fetch = StoreKeys._fetch
    monkeypatch.setattr(StoreKeys, "_fetch", note)
    return noted


@pytest.fixture
def without_sample(monkeypatch):
    """Let Datastore have no sample, as of a table that is too small for one."""
    monkeypatch.setattr(StoreKeys, "sample", lambda reader, limit: [])


def make_migration(model, **attributes):
    class Migration(MapperMigration):
        allowed_db_aliases = ("datastore", "firestore")
        update_fields = ["visits"]

        def get_queryset(self, db_alias):
            return model.objects.using(db_alias)

        def operation(self, row, db_alias):
            row.visits += 1

    for name, value in attributes.items():
        setattr(Migration, name, value)
    return make(Migration)


def count_parts(parts, table):
    """Return how many rows each part holds, and check that they follow each other."""
    assert parts[0].lower is None
    assert parts[-1].upper is None
    assert [part.upper for part in parts[:-1]] == [part.lower for part in parts[1:]]
    decode = [None if part.upper is None else table.codec.decode(part.upper) for part in parts]
    ranges = [KeyRange(lower, upper) for lower, upper in zip([None, *decode], decode, strict=False)]
    return [len(StoreKeys(table.keys, keys).read(None, None, 10_000)) for keys in ranges]


def check_balance(db_alias, kind, queries):
    model, make_keys, worst = KEYS[kind]
    keys = set(make_keys(db_alias))
    store_rows(model, keys, db_alias)
    migration = make_migration(model, shard_count=8)
    table = get_table(migration, db_alias)
    parts = plan_ranges(migration, table)
    assert len(queries) <= 66
    assert all(limit <= 1_001 for limit in queries)
    counts = count_parts(parts, table)
    assert len(counts) == 8 or kind == "words"  # where the orders of the stores disagree, no bound is set
    assert sum(counts) == len(keys)  # so that no row lies in two of them, or in none
    assert max(counts) <= worst * len(keys) / 8


@pytest.mark.parametrize("kind", KEYS)
def test_ranges_are_balanced_by_probing(db_alias, kind, queries, without_sample):
    check_balance(db_alias, kind, queries)


@pytest.mark.django_db(transaction=True, databases=["datastore"])
@pytest.mark.parametrize("kind", ["automatic", "clustered", "words"])
def test_ranges_are_balanced_by_a_sample(clean_databases, kind, queries):
    check_balance("datastore", kind, queries)
    assert 256 in queries


@pytest.mark.django_db(transaction=True, databases=["datastore"])
def test_a_sample_balances_what_no_probe_finds(clean_databases):
    keys = {*(key * 10**15 for key in range(1, 1_001)), *range(617 * 10**15 + 7, 617 * 10**15 + 2_007)}
    store_rows(Number, keys, "datastore")
    migration = make_migration(Number, shard_count=8)
    table = get_table(migration, "datastore")
    counts = count_parts(plan_ranges(migration, table), table)
    assert sum(counts) == len(keys)
    assert max(counts) <= 2 * len(keys) / 8


def test_a_small_sample_is_not_used(db_alias, monkeypatch):
    monkeypatch.setattr(StoreKeys, "sample", lambda reader, limit: list(range(1, 16)))
    store_rows(Row, make_automatic(db_alias, 1_200), db_alias)
    migration = make_migration(Row, shard_count=2)
    table = get_table(migration, db_alias)
    assert max(count_parts(plan_ranges(migration, table), table)) < 900


def test_queries_do_not_grow_with_the_table(db_alias, queries, without_sample):
    migration = make_migration(Row, shard_count=8)
    numbers = []
    for count in (2_000, 6_000):
        store_rows(Row, make_automatic(db_alias, count), db_alias)
        plan_ranges(migration, get_table(migration, db_alias))
        numbers.append(len(queries))
        queries.clear()
    assert max(numbers) <= 33


def test_few_rows_are_not_split_unless_asked_for(db_alias, queries):
    migration = make_migration(Row)
    for count, parts, asked in ((0, 1, 1), (5, 1, 3), (5_000, 2, 3)):
        store_rows(Row, make_automatic(db_alias, count), db_alias)
        table = get_table(migration, db_alias)
        assert len(plan_ranges(migration, table)) == parts
        counts = count_parts(plan_ranges(make_migration(Row, shard_count=3), table), table)
        assert len(counts) == asked
    assert len(plan_ranges(make_migration(Row, shard_count=3, serial=True), table)) == 1
    queries.clear()
    plan_ranges(make_migration(Row, shard_count=1), table)
    assert queries == []


def test_the_rows_that_match_are_divided(db_alias):
    ids = sorted(make_automatic(db_alias, 1_500))
    store_rows(Row, ids[:300], db_alias, flag=True)
    store_rows(Row, ids[300:], db_alias)

    migration = make_migration(
        Row,
        shard_count=3,
        get_queryset=lambda self, db_alias: Row.objects.using(db_alias).filter(flag=True),
    )
    table = get_table(migration, db_alias)
    parts = plan_ranges(migration, table)
    bounds = [table.codec.decode(part.upper) for part in parts[:-1]]
    assert bounds == [ids[99], ids[199]]


@pytest.mark.parametrize("keys", [[7], [-3, 5], [-1, 1], [-5, -9], [LOWEST_INTEGER, HIGHEST_INTEGER], range(-9, 0)])
def test_corners_of_integers(db_alias, keys):
    store_rows(Number, keys, db_alias)
    migration = make_migration(Number, shard_count=4)
    table = get_table(migration, db_alias)
    counts = count_parts(plan_ranges(migration, table), table)
    assert sum(counts) == len(keys)
    assert max(counts) <= -(-len(keys) // 4)


def test_what_finds_nothing_is_one_range(db_alias):
    store_rows(Row, make_automatic(db_alias, 3), db_alias)
    for rows in (Row.objects.none(), Row.objects.filter(pk__in=[]), Row.objects.filter(flag=True)):
        migration = make_migration(
            Row, shard_count=3, get_queryset=lambda self, db_alias, rows=rows: rows.using(db_alias)
        )
        assert len(plan_ranges(migration, get_table(migration, db_alias))) == 1


@pytest.fixture
def small_ranges(monkeypatch):
    """Let small ranges be worth a cut, so that tests need no millions of rows."""
    monkeypatch.setattr(sharding, "ROWS_PER_SHARD", 300)


def split(migration, attempt_uuid, db_alias):
    return get_kind(migration).split_largest(recorder.get_shards(attempt_uuid, db_alias), db_alias)


@pytest.mark.parametrize("kind", ["automatic", "random UUIDs", "hashes", "clustered"])
def test_half_of_the_largest_range_left_goes_to_an_idle_worker(db_alias, kind, small_ranges, queries):
    model, make_keys, _ = KEYS[kind]
    keys = set(make_keys(db_alias))
    store_rows(model, keys, db_alias)
    migration = make_migration(model, shard_count=1)
    attempt_uuid = start(migration, db_alias)
    owned = claim_range(migration, db_alias)
    queries.clear()
    new = split(migration, attempt_uuid, db_alias)
    assert len(queries) <= 11 + 17
    ranges = [shard for shard in recorder.get_shards(attempt_uuid, db_alias) if shard.kind == MigrationShard.RANGE]
    kept, stored = sorted(ranges, key=lambda shard: shard.number)
    assert (kept.pk, stored.pk, stored.status) == (owned.pk, new.pk, MigrationShard.READY)
    assert kept.upper == new.lower is not None
    counts = count_parts([kept, new], get_table(migration, db_alias))
    assert sum(counts) == len(keys)
    assert min(counts) >= len(keys) / 4


def test_the_largest_range_is_the_one_that_is_cut(db_alias, queries):
    store_rows(Number, range(1, 3_001), db_alias)
    table = get_table(make_migration(Number), db_alias)
    ranges = [KeyRange(None, 500), KeyRange(500, 2_500), KeyRange(2_500, None)]
    number, middle = table.database.find_middle(table.queryset, ranges, 300)
    assert number == 1
    assert 1_000 < middle < 2_000
    assert len(queries) <= 3 * 11 + 17
    assert table.database.find_middle(table.queryset, ranges[:1], 600) is None
    assert table.database.find_middle(table.queryset, [KeyRange(2_990, None)], 1) is None
    assert table.database.find_middle(table.queryset, [], 1) is None
    queries.clear()
    assert table.database.find_middle(table.queryset, ranges * 20, 300) is not None
    assert len(queries) <= 6 * 11 + 17


def test_cut_lies_strictly_within_its_range(db_alias):
    keys = sorted({*range(1, 400), *(RANDOM.getrandbits(63) for _ in range(400))})
    store_rows(Number, keys, db_alias)
    table = get_table(make_migration(Number), db_alias)
    for after, upto in itertools.combinations(range(0, len(keys), 250), 2):
        found = table.database.find_middle(table.queryset, [KeyRange(keys[after], keys[upto])], 1)
        if found is not None:
            assert keys[after] < found[1] < keys[upto]


def test_what_saves_by_itself_is_not_cut_while_it_is_worked_on(db_alias, small_ranges):
    class Migration(BatchMigration):
        allowed_db_aliases = ("datastore", "firestore")
        shard_count = 1

        def get_queryset(self, db_alias):
            return Row.objects.using(db_alias)

        def operation(self, rows, db_alias):
            rows.update(flag=True)

    store_rows(Row, make_automatic(db_alias, 1_500), db_alias)
    migration = make(Migration)
    attempt_uuid = start(migration, db_alias)
    claim_range(migration, db_alias)
    assert split(migration, attempt_uuid, db_alias) is None


@pytest.mark.parametrize("model", [Row, Token, Word, Number])
def test_made_up_keys_are_in_the_order_of_the_store(db_alias, model):
    known = {
        Row: [1, 5, 2**52, 2**63 - 1],
        Number: [-(2**63), -77, -76, -1, 1, 5, 10**15],
        Token: [uuid.UUID(int=number) for number in (1, 9, 10**30, 2**127)],
        Word: ["a", "a-b", "b1", "zz", "Ä", "0"],
    }[model]
    store_rows(model, known, db_alias)
    reader = StoreKeys(model.objects.using(db_alias).all())
    stored = reader.read(None, None, 100)
    space = get_keyspace(KeyCodec(model), pads_integers=reader.pads_integers)
    space.learn(stored)
    assert [space.get_position(key) for key in stored] == sorted(space.get_position(key) for key in known)
    assert space.keep_rising(stored) == stored
    for key, following in itertools.pairwise(stored):
        middle = space.get_key((space.get_position(key) + space.get_position(following)) // 2)
        if space.keep_rising([middle], key, following):
            assert reader.read(key, middle, 10) == []
            assert reader.read(middle, following, 10) == [following]


def test_strings_whose_order_the_stores_disagree_on_are_no_bounds():
    space = Texts()
    assert space.keep_rising(["a", "\uff5e", "😀"]) == ["a", "\uff5e"]  # in UTF-16 the last comes before
    assert space.keep_rising(["b", "a", "c"]) == ["b", "c"]


@at_any_speed
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60)), st.integers(0, 2**300))
def test_numbers_of_strings_rise_with_them(texts, position):
    space = Texts()
    space.learn(sorted(set(texts)))
    numbers = [space.get_position(text) for text in sorted(set(texts))]
    assert numbers == sorted(numbers)
    made = space.get_key(position % (space.highest + 1))
    assert made is None or space.get_position(made) <= position % (space.highest + 1)


def test_no_key_is_made_up_that_a_store_refuses():
    space = Texts()
    space.learn([".", "..", "__id7__"])
    made = {space.get_key(position) for position in range(min(space.highest, 20_000))}
    assert made.isdisjoint({"", ".", ".."})
    assert not any(text.startswith("__") for text in made if text)


@at_any_speed
@given(st.integers(LOWEST_INTEGER, HIGHEST_INTEGER).filter(bool))
def test_padded_integers_come_back_from_their_numbers(key):
    space = PaddedIntegers()
    assert space.get_key(space.get_position(key)) == key
    assert space.get_key(0) == LOWEST_INTEGER
    assert space.get_key(space.get_position(LOWEST_INTEGER) + 1) == LOWEST_INTEGER
