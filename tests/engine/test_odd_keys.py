"""Keys that their field stores as something else: no order but the database's is relied upon."""

from __future__ import annotations

import pytest
from django.db import models

from massmigration import MapperMigration, recorder
from massmigration.databases import spreading
from massmigration.databases.documents.keyspace import get_keyspace
from massmigration.databases.keys import KeyCodec, is_plain_field
from massmigration.databases.postgresql import Database as PostgreSQL
from massmigration.databases.registry import get_database
from massmigration.databases.sql import SqlDatabase
from massmigration.databases.sqlite import Database as SQLite
from massmigration.engine import sharding
from massmigration.engine.kinds import get_kind
from massmigration.exceptions import InvalidDefinition
from tests.engine.support import claim_range, make, run, start
from tests.engine.tables import Row, make_tables
from tests.testapp.models import City, CompositeRow, Profile, UuidRow

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

BITS = 12


def turn_round(number):
    """Reverse the bits of a number, as some do to spread keys that rise."""
    return None if number is None else int(f"{number:0{BITS}b}"[::-1], 2)


class PrepValueField(models.IntegerField):
    def get_prep_value(self, value):
        return turn_round(super().get_prep_value(value))

    def from_db_value(self, value, expression, connection):
        return turn_round(value)


class DbPrepValueField(models.IntegerField):
    def get_db_prep_value(self, value, connection, prepared=False):
        return turn_round(super().get_db_prep_value(value, connection, prepared))

    def from_db_value(self, value, expression, connection):
        return turn_round(value)


class ConvertedField(models.IntegerField):
    def get_prep_value(self, value):
        return turn_round(super().get_prep_value(value))

    def get_db_converters(self, connection):
        return [lambda value, expression, connection: turn_round(value)]


class TextTypeField(models.IntegerField):
    """Its column is text, where 10 comes before 9."""

    def db_type(self, connection):
        return "varchar(20)"

    def rel_db_type(self, connection):
        return "varchar(20)"

    def get_db_prep_value(self, value, connection, prepared=False):
        return None if value is None else str(value)

    def from_db_value(self, value, expression, connection):
        return int(value)


class UpperField(models.CharField):
    """Its column holds the text from right to left."""

    def get_prep_value(self, value):
        return value and value[::-1]

    def from_db_value(self, value, expression, connection):
        return value and value[::-1]


class NamedField(models.BigAutoField):
    """A subclass that changes nothing of what matters."""

    description = "A key with a name"


class Prepared(Row):
    id = PrepValueField(primary_key=True)


class DbPrepared(Row):
    id = DbPrepValueField(primary_key=True)


class Converted(Row):
    id = ConvertedField(primary_key=True)


class TextTyped(Row):
    id = TextTypeField(primary_key=True)


class Upper(Row):
    id = UpperField(primary_key=True, max_length=20)


class Named(Row):
    id = NamedField(primary_key=True)


class Refers(Row):
    prepared = models.OneToOneField(Prepared, models.CASCADE, primary_key=True, db_constraint=False)


class RefersToDbPrepared(Row):
    target = models.OneToOneField(DbPrepared, models.CASCADE, primary_key=True, db_constraint=False)


MODELS = [Prepared, DbPrepared, Converted, TextTyped, RefersToDbPrepared]


def make_definition(model, **attributes):
    class Migration(MapperMigration):
        update_fields = ["visits"]

        def get_queryset(self, db_alias):
            return model.objects.using(db_alias)

        def operation(self, row, db_alias):
            row.visits += 1

    for name, value in attributes.items():
        setattr(Migration, name, value)
    return make(Migration)


def make_rows(model, db_alias):
    numbers = range(1, 300)
    if model is Refers:
        rows = [Refers(prepared_id=number) for number in numbers]
    elif model is RefersToDbPrepared:
        rows = [RefersToDbPrepared(target_id=number) for number in numbers]
    elif model is Upper:
        rows = [Upper(pk=f"{number:04}") for number in numbers]
    else:
        rows = [model(pk=number) for number in numbers]
    model.objects.using(db_alias).bulk_create(rows)


@pytest.mark.parametrize("model", [*MODELS, Upper, Named])
def test_each_row_is_visited_once_whatever_the_column_holds(db_alias, model):
    with make_tables(db_alias, model):
        make_rows(model, db_alias)
        progress = run(make_definition(model, shard_count=4), db_alias)
        assert (progress.status, progress.processed) == ("applied", 299)
        assert set(model.objects.using(db_alias).values_list("visits", flat=True)) == {1}


@pytest.mark.parametrize("model", MODELS)
def test_a_range_that_is_cut_later_is_cut_at_a_key_of_its_own(db_alias, model, monkeypatch):
    monkeypatch.setattr(sharding, "ROWS_PER_SHARD", 20)
    monkeypatch.setattr(spreading, "STEPS", (100, 40, 20))
    with make_tables(db_alias, model):
        make_rows(model, db_alias)
        migration = make_definition(model, shard_count=1)
        attempt_uuid = start(migration, db_alias)
        claim_range(migration, db_alias)
        new = get_kind(migration).split_largest(recorder.get_shards(attempt_uuid, db_alias), db_alias)
        assert new is not None
        codec = KeyCodec(model)
        keys = list(model.objects.using(db_alias).order_by("pk").values_list("pk", flat=True))
        assert codec.decode(new.lower) in keys[:-1]


def test_a_reference_whose_value_django_prepares_twice_is_refused(db_alias):
    with make_tables(db_alias, Refers):
        make_rows(Refers, db_alias)
        with pytest.raises(InvalidDefinition, match="rows would be skipped"):
            start(make_definition(Refers), db_alias)


def test_no_sample_is_taken_of_keys_that_are_stored_as_something_else(db_alias, monkeypatch):
    monkeypatch.setattr(spreading, "SAMPLE_LIMIT", 0)
    with make_tables(db_alias, Upper):
        make_rows(Upper, db_alias)
        assert get_database(db_alias).find_bounds(Upper.objects.using(db_alias), 2, None) == []


@pytest.mark.parametrize(
    ("model", "is_plain"),
    [*((model, False) for model in (*MODELS, Upper)), (Named, True), (City, True), (UuidRow, True), (Profile, True)],
)
def test_only_djangos_own_ways_to_store_a_key_are_calculated_with(model, is_plain):
    codec = KeyCodec(model)
    assert codec.is_plain is is_plain
    assert (get_keyspace(codec, pads_integers=False) is not None) is is_plain
    assert PostgreSQL("any").computes(codec) is is_plain


def test_uuids_are_calculated_with_where_the_database_orders_them_as_numbers():
    codec = KeyCodec(UuidRow)
    assert PostgreSQL("any").computes(codec) and SQLite("any").computes(codec)
    assert not SqlDatabase("any").computes(codec)  # MariaDB's own type orders them by their last bytes first
    assert SqlDatabase("any").computes(KeyCodec(City))
    assert not SQLite("any").computes(KeyCodec(CompositeRow))


def test_a_conversion_that_is_no_method_is_the_authors_own():
    class Static(models.IntegerField):
        get_prep_value = staticmethod(int)

    field = models.IntegerField()
    assert is_plain_field(field)
    field.get_prep_value = int
    assert not is_plain_field(field)
    assert not is_plain_field(Static())
