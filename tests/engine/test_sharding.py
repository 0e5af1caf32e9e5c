"""Ranges of keys cover all there is, without a gap and without an overlap, also when they are cut while worked on."""

from __future__ import annotations

import itertools
import time
import uuid

import pytest
from django.db import connections
from django.db.models import F
from hypothesis import given
from hypothesis import strategies as st

from massmigration import BatchMigration, CustomMigration, MapperMigration, recorder, worker
from massmigration.databases import spreading
from massmigration.databases.keys import KeyCodec
from massmigration.databases.ranges import KeyRange
from massmigration.engine import sharding
from massmigration.engine.batch import BatchRunner
from massmigration.engine.kinds import get_kind
from massmigration.engine.leases import claim, release
from massmigration.engine.sharding import plan_ranges
from massmigration.engine.slice import Slice
from massmigration.engine.tables import get_table
from massmigration.models import MigrationShard
from tests.engine.support import claim_range, in_threads, make, run, start, work
from tests.testapp.models import City, CompositeRow, SparseInt, TextRow, UuidRow

database = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])
INTEGERS = st.integers(-(2**63), 2**63 - 1)


@given(st.tuples(INTEGERS, INTEGERS), st.integers(1, 50))
def test_arithmetic_cuts_integers_into_equal_parts(ends, count):
    low, high = sorted(ends)
    bounds = KeyCodec(SparseInt).split(low, high, count)
    edges = [low - 1, *bounds, high]
    widths = [upper - lower for lower, upper in itertools.pairwise(edges)]
    assert sum(widths) == high - low + 1
    assert min(widths) >= 1
    assert max(widths) - min(widths) <= 1
    assert len(widths) == min(count, high - low + 1)


@given(st.tuples(st.uuids(), st.uuids()), st.integers(1, 50))
def test_arithmetic_cuts_uuids_too(ends, count):
    low, high = sorted(ends)
    bounds = KeyCodec(UuidRow).split(low, high, count)
    assert all(isinstance(bound, uuid.UUID) for bound in bounds)
    assert bounds == sorted(set(bounds))
    assert all(low <= bound < high for bound in bounds)
    assert len(bounds) == min(count - 1, high.int - low.int)


def make_migration(model, name="0001_test", **attributes):
    class Migration(MapperMigration):
        update_fields = ["visits"]

        def get_queryset(self, db_alias):
            return model.objects.using(db_alias)

        def operation(self, row, db_alias):
            row.visits += 1

    for attribute, value in attributes.items():
        setattr(Migration, attribute, value)
    return make(Migration, name)


def make_rows(model, db_alias, count):
    rows = {
        SparseInt: lambda n: SparseInt(pk=n * 3 - count),
        UuidRow: lambda n: UuidRow(),
        TextRow: lambda n: TextRow(pk=f"{chr(0x61 + n % 26)}{n}ü"),
        CompositeRow: lambda n: CompositeRow(tenant=f"t{n % 3}", number=n),
        City: lambda n: City(name=str(n)),
    }[model]
    model.objects.using(db_alias).bulk_create([rows(number) for number in range(count)])


def count_parts(parts, table):
    """Return how many rows each part holds, and check that they follow each other."""
    assert parts[0].lower is None
    assert parts[-1].upper is None
    assert [part.upper for part in parts[:-1]] == [part.lower for part in parts[1:]]
    decode = [None if part.upper is None else table.codec.decode(part.upper) for part in parts]
    ranges = [KeyRange(lower, upper) for lower, upper in zip([None, *decode], decode, strict=False)]
    return [keys.narrow(table.keys).count() for keys in ranges]


@database
@pytest.mark.parametrize("model", [SparseInt, UuidRow, TextRow, CompositeRow])
def test_the_first_ranges_are_as_many_as_asked_for_and_balanced(db_alias, model):
    make_rows(model, db_alias, 2100)
    migration = make_migration(model, shard_count=7)
    table = get_table(migration, db_alias)
    counts = count_parts(plan_ranges(migration, table), table)
    assert len(counts) == 7
    assert sum(counts) == 2100
    assert min(counts) > 200
    assert max(counts) < 400


@database
def test_few_rows_are_not_split_unless_asked_for(db_alias, settings):
    make_rows(SparseInt, db_alias, 4100)
    table = get_table(make_migration(SparseInt), db_alias)
    assert len(plan_ranges(make_migration(SparseInt), table)) == 2
    assert len(plan_ranges(make_migration(SparseInt, shard_count=9), table)) == 9
    assert len(plan_ranges(make_migration(SparseInt, shard_count=9, serial=True), table)) == 1
    settings.MASSMIGRATION_SHARD_COUNT = 1
    assert len(plan_ranges(make_migration(SparseInt), table)) == 1


@database
@pytest.mark.parametrize("model", [SparseInt, UuidRow, TextRow, CompositeRow])
def test_fewer_rows_than_ranges(db_alias, model):
    for count in (0, 1, 5):
        make_rows(model, db_alias, count)
        migration = make_migration(model, f"000{count}_test", shard_count=7)
        table = get_table(migration, db_alias)
        counts = count_parts(plan_ranges(migration, table), table)
        assert sum(counts) == count
        assert len(counts) <= 7
        assert run(migration, db_alias).status == "applied"
        assert set(model.objects.using(db_alias).values_list("visits", flat=True)) <= {1}
        model.objects.using(db_alias).all().delete()


@pytest.fixture
def small_ranges(monkeypatch):
    """Let small ranges be worth a cut, so that tests need no millions of rows."""
    monkeypatch.setattr(sharding, "ROWS_PER_SHARD", 20)
    monkeypatch.setattr(spreading, "STEPS", (2000, 500, 100, 20))


def get_ranges(attempt_uuid, db_alias):
    return [shard for shard in recorder.get_shards(attempt_uuid, db_alias) if shard.kind == MigrationShard.RANGE]


def split(migration, attempt_uuid, db_alias):
    return get_kind(migration).split_largest(recorder.get_shards(attempt_uuid, db_alias), db_alias)


@database
@pytest.mark.parametrize("model", [SparseInt, UuidRow, TextRow, CompositeRow])
def test_half_of_the_largest_range_left_goes_to_an_idle_worker(db_alias, small_ranges, model):
    make_rows(model, db_alias, 1000)
    migration = make_migration(model, shard_count=1)
    attempt_uuid = start(migration, db_alias)
    owned = claim_range(migration, db_alias)
    new = split(migration, attempt_uuid, db_alias)
    kept, stored = get_ranges(attempt_uuid, db_alias)
    assert (stored.pk, stored.status, stored.number) == (new.pk, MigrationShard.READY, 1)
    assert (kept.pk, kept.fence, kept.cursor, kept.lower) == (owned.pk, owned.fence, None, None)
    assert kept.upper == new.lower is not None
    assert new.upper is None
    counts = count_parts([kept, new], get_table(migration, db_alias))
    assert sum(counts) == 1000
    assert min(counts) >= 400
    assert get_kind(migration).split_largest([kept, new], db_alias).pk.endswith("-2")  # the new one is nobody's yet


@database
def test_the_larger_of_two_ranges_is_cut_behind_its_cursor(db_alias, small_ranges):
    make_rows(SparseInt, db_alias, 1000)
    migration = make_migration(SparseInt, shard_count=2, batch_size=100)
    attempt_uuid = start(migration, db_alias)
    first = claim_range(migration, db_alias, "a")
    kind = get_kind(migration).make_processor(db_alias)
    runner = BatchRunner(kind, first)
    for _ in range(3):
        runner.run()
    if db_alias == "postgres":  # SQLite has one worker only
        claim_range(migration, db_alias, "b")
    new = split(migration, attempt_uuid, db_alias)
    keys = [int(bound) if bound else None for bound in (new.lower, new.upper)]
    if db_alias == "postgres":
        assert 1200 < keys[0] < 1300
        assert keys[1] is None
    else:
        assert -110 < int(first.cursor) < keys[0] < keys[1]
        assert keys[0] - int(first.cursor) == pytest.approx(keys[1] - keys[0], abs=4)


@database
def test_what_is_not_cut(db_alias, small_ranges):
    class Custom(CustomMigration):
        def get_items(self, shard, cursor, db_alias):
            yield from ((number, number) for number in range(10_000))

    make_rows(SparseInt, db_alias, 1000)
    custom = make(Custom, "0002_custom")
    for migration in (custom, make_migration(SparseInt, serial=True)):
        attempt_uuid = start(migration, db_alias)
        owned = claim_range(migration, db_alias)
        assert split(migration, attempt_uuid, db_alias) is None
        release(owned, db_alias)
    SparseInt.objects.using(db_alias).filter(pk__gt=-950).delete()
    few = make_migration(SparseInt, "0003_few")
    attempt_uuid = start(few, db_alias)
    owned = claim_range(few, db_alias)
    assert split(few, attempt_uuid, db_alias) is None  # not worth it
    make_rows(UuidRow, db_alias, 100)
    listed = make_migration(UuidRow)
    shards = recorder.get_shards(attempt_uuid, db_alias)
    assert (
        get_kind(listed).split_largest([shard for shard in shards if shard.kind == MigrationShard.PLAN], db_alias)
        is None
    )
    owned.payload = {"keys": ["1"]}
    assert get_kind(listed).split_largest([owned], db_alias) is None  # what is tried again is a list
    assert len(get_ranges(attempt_uuid, db_alias)) == 1


@database
@pytest.mark.needs_postgres
@pytest.mark.parametrize("kind", ["mapper", "batch"])
def test_the_owner_of_a_range_goes_on_within_its_new_bound(small_ranges, kind):
    """The cuts come while a batch is in hand: far behind it, just behind it, and through it."""

    class Batch(BatchMigration):
        batch_size, shard_count = 300, 1

        def get_queryset(self, db_alias):
            return SparseInt.objects.using(db_alias)

        def operation(self, rows, db_alias):
            rows.update(visits=F("visits") + 1)
            cut()

    def cut():
        if bounds:
            shard = recorder.get_shard(owned.pk, "postgres")
            bound = bounds.pop(0)
            number = len(get_ranges(shard.attempt_uuid, "postgres"))
            news.append(in_threads(lambda: recorder.ShardMaker("postgres").split_shard(shard, str(bound), number))[0])

    class Mapper(MapperMigration):
        batch_size, shard_count = 300, 1
        update_fields = ["visits"]

        def get_queryset(self, db_alias):
            return SparseInt.objects.using(db_alias)

        def operation(self, row, db_alias):
            row.visits += 1
            cut()

    db_alias = "postgres"  # SQLite has one worker only
    make_rows(SparseInt, db_alias, 1000)  # from -1000 in steps of three
    bounds, news = [1500, 500, -500], []
    migration = make({"mapper": Mapper, "batch": Batch}[kind])
    attempt_uuid = start(migration, db_alias)
    owned = claim_range(migration, db_alias)
    Slice(owned, migration, db_alias).run()
    done = get_ranges(attempt_uuid, db_alias)[0]
    assert (done.status, done.upper) == (MigrationShard.DONE, "-500")
    assert all(news)
    assert set(SparseInt.objects.using(db_alias).filter(pk__lte=-500).values_list("visits", flat=True)) == {1}
    assert set(SparseInt.objects.using(db_alias).filter(pk__gt=-500).values_list("visits", flat=True)) == {0}
    progress = work(migration, db_alias)
    assert (progress.status, progress.processed) == ("applied", 1000)
    assert set(SparseInt.objects.using(db_alias).values_list("visits", flat=True)) == {1}


@database
@pytest.mark.needs_postgres
@pytest.mark.parametrize("model", [UuidRow, CompositeRow])
def test_no_row_is_skipped_or_visited_twice_while_ranges_are_cut_again_and_again(small_ranges, monkeypatch, model):
    def operation(self, row, db_alias):
        row.visits += 1
        time.sleep(0.002)

    monkeypatch.setattr(worker, "POLL_SECONDS", 0.01)
    make_rows(model, "postgres", 800)
    migration = make_migration(model, shard_count=1, batch_size=20, operation=operation)
    attempt_uuid = start(migration, "postgres")
    in_threads(*[lambda: worker.work(migration, "postgres", attempt_uuid) for _ in range(5)])
    ranges = get_ranges(attempt_uuid, "postgres")
    assert recorder.get_record(migration.key, "postgres").status == "applied"
    assert set(model.objects.using("postgres").values_list("visits", flat=True)) == {1}
    assert sum(shard.processed for shard in ranges) == 800
    assert len(ranges) >= 5
    by_lower = {shard.lower: shard for shard in ranges}
    assert len(by_lower) == len(ranges)
    shard = by_lower.pop(None)
    while shard.upper is not None:  # each begins where another one ends
        shard = by_lower.pop(shard.upper)
    assert not by_lower


@database
@pytest.mark.needs_postgres
def test_two_splitters_at_once(small_ranges):
    make_rows(SparseInt, "postgres", 1000)
    migration = make_migration(SparseInt, shard_count=2)
    attempt_uuid = start(migration, "postgres")
    for name in "ab":
        claim_range(migration, "postgres", name)
    for round_number in range(1, 6):
        shards = recorder.get_shards(attempt_uuid, "postgres")
        new = in_threads(*[lambda: get_kind(migration).split_largest(shards, "postgres") for _ in range(4)])  # noqa: B023
        made = [shard for shard in new if shard is not None]
        assert len(made) == 1
        ranges = get_ranges(attempt_uuid, "postgres")
        assert len(ranges) == 2 + round_number
        ranges.sort(key=lambda shard: (shard.lower is not None, int(shard.lower or 0)))
        assert sum(count_parts(ranges, get_table(migration, "postgres"))) == 1000
        assert claim(made[0], migration, "postgres", f"worker {round_number}")


@database
@pytest.mark.needs_postgres
def test_bounds_in_a_sample_of_a_large_table(monkeypatch):
    monkeypatch.setattr(spreading, "SAMPLE_LIMIT", 1000)
    with connections["postgres"].cursor() as cursor:
        cursor.execute(
            "INSERT INTO testapp_textrow (id, text, visits) SELECT md5(i::text), repeat('x', 150), 0 "
            "FROM generate_series(1, 40000) AS i"
        )
        cursor.execute("ANALYZE testapp_textrow")
    migration = make_migration(TextRow, shard_count=4)
    table = get_table(migration, "postgres")
    counts = count_parts(plan_ranges(migration, table), table)
    assert len(counts) in (1, 4)  # a sample may come out empty
    assert sum(counts) == 40_000
