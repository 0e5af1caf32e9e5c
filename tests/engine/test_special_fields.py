"""With update_fields, a field is written as ``Model.save()`` would write it, whatever the field does by itself."""

from __future__ import annotations

import json

import pytest
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.core.files.base import ContentFile
from django.db import DatabaseError, connections, models
from django.db.models import F, Value
from django.db.models.functions import Concat, Upper
from django.test.utils import CaptureQueriesContext
from django.utils.safestring import mark_safe

from massmigration import MapperMigration
from massmigration.databases.registry import get_database
from massmigration.databases.writeback import get_fields
from tests.conftest import needs_postgres
from tests.engine.support import run
from tests.engine.tables import Extra, make_tables
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])


class Country(Extra):
    code = models.CharField(max_length=10, unique=True)


class Place(Extra):
    name = models.CharField(max_length=30)
    country = models.ForeignKey(Country, models.CASCADE, null=True, db_constraint=False)
    by_code = models.ForeignKey(
        Country, models.CASCADE, null=True, to_field="code", db_constraint=False, related_name="+"
    )
    kind = models.ForeignKey(ContentType, models.CASCADE, null=True, db_constraint=False)
    about_id = models.PositiveBigIntegerField(null=True)
    about = GenericForeignKey("kind", "about_id")


def make_mapper(model, names, change, **attributes):
    class Migration(MapperMigration):
        update_fields = names

        def get_queryset(self, db_alias):
            return model.objects.using(db_alias)

        def operation(self, obj, db_alias):
            change(obj, db_alias)

    for name, value in attributes.items():
        setattr(Migration, name, value)
    return Migration


@pytest.fixture
def places(db_alias):
    with make_tables(db_alias, Country, Place):
        rows = Place.objects.using(db_alias)
        rows.bulk_create([Place(name=f"p{number}") for number in range(6)])
        yield rows


@pytest.mark.parametrize("names", [["country"], ["by_code"], ["country_id", "by_code", "name"]])
def test_a_related_object_that_is_saved_after_it_was_set_gives_its_key(db_alias, places, names):
    def change(place, alias):
        country = Country(code=f"c{place.name}")
        place.country = place.by_code = country
        country.save(using=alias)

    progress = run(make_mapper(Place, names, change), db_alias)
    assert (progress.status, progress.changed) == ("applied", 6)
    for place in places:
        country = Country.objects.using(db_alias).get(code=f"c{place.name}")
        assert place.country_id == (country.pk if "by_code" not in names[:1] else None)
        assert place.by_code_id == (country.code if "by_code" in names else None)


def test_a_related_object_that_a_later_object_saves_gives_its_key(db_alias, places):
    waiting = []

    def change(place, alias):
        if place.name == "p0":  # a batch may be repeated, here because it writes countries
            waiting.clear()
        waiting.append(Country(code=place.name))
        place.country = waiting[-1]
        if place.name == "p5":
            for country in waiting:
                country.save(using=alias)

    assert run(make_mapper(Place, ["country"], change), db_alias).changed == 6
    assert {place.country.code for place in places} == {f"p{number}" for number in range(6)}


def test_a_related_object_that_is_never_saved_fails_instead_of_writing_null(db_alias, places):
    Country(code="old").save(using=db_alias)
    places.update(country=Country.objects.using(db_alias).get())

    def change(place, alias):
        if place.name == "p3":
            place.country = Country(code="new")

    progress = run(make_mapper(Place, ["country"], change, on_error="skip"), db_alias)
    assert (progress.status, progress.failed) == ("failed", 1)
    assert {place.country.code for place in places} == {"old"}


def test_a_generic_related_object_is_no_exception(db_alias, places):
    def change(place, alias):
        city = City(name=place.name)
        city._state.db = alias
        place.about = city
        if place.name != "p3":
            city.save(using=alias)

    progress = run(make_mapper(Place, ["kind", "about_id"], change, on_error="skip"), db_alias)
    assert (progress.status, progress.failed, progress.changed) == ("failed", 1, 5)
    for place in places:
        assert (getattr(place.about, "name", None)) == (place.name if place.name != "p3" else None)


class PlaceholderField(models.TextField):
    """Stands for one that has the database encrypt."""

    def get_placeholder(self, value, compiler, connection):
        return "upper(%s)"

    def get_placeholder_sql(self, value, compiler, connection):  # Django 6.1 leaves expressions to it, too
        sql, params = compiler.compile(value) if hasattr(value, "as_sql") else ("%s", (value,))
        return f"upper({sql})", params


class SealedField(models.TextField):
    """Its values change each time they are prepared, so that twice is once too often."""

    def get_db_prep_save(self, value, connection):
        return f"<{value}>"


class StrippedField(models.CharField):
    def get_prep_value(self, value):
        value = super().get_prep_value(value)
        return value and value.strip()


class PairField(models.TextField):
    """Hands something to the driver that only it knows how to adapt."""

    def get_db_prep_value(self, value, connection, prepared=False):
        return json.dumps(value) if connection.vendor == "sqlite" else Value(json.dumps(value))


class ScaledField(models.IntegerField):
    """A value of another type than the column's: the database converts it, and rounds."""

    def get_db_prep_save(self, value, connection):
        return value / 2


class Special(Extra):
    plain = models.CharField(max_length=9, default="")
    secret = PlaceholderField(default="")
    sealed = SealedField(default="")
    stripped = StrippedField(max_length=9, default="")
    pair = PairField(default="")
    scaled = ScaledField(default=0)


SPECIAL = {
    "plain": ("x", "x"),
    "secret": ("secret", "SECRET"),
    "sealed": ("letter", "<letter>"),
    "stripped": (" x ", "x"),
    "pair": ([1, 2], "[1, 2]"),
}


def read(db_alias, table, column):
    with connections[db_alias].cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM {table} ORDER BY 1")
        return [row[0] for row in cursor.fetchall()]


def get_updates(queries):
    return [query["sql"] for query in queries if query["sql"].startswith("UPDATE")]


@pytest.mark.parametrize("names", [[name] for name in SPECIAL] + [list(SPECIAL)], ids=str)
def test_a_field_is_written_as_django_writes_it(db_alias, names):
    with make_tables(db_alias, Special):
        rows = Special.objects.using(db_alias)
        objects = rows.bulk_create([Special() for _ in range(3)])
        for obj in objects:
            for name in names:
                setattr(obj, name, SPECIAL[name][0])
        with CaptureQueriesContext(connections[db_alias]) as queries:
            get_database(db_alias).write_objects(objects, get_fields(Special, names, "x"))
        for name in names:
            assert read(db_alias, "extra_special", name) == [SPECIAL[name][1]] * 3
        is_quick = names in (["plain"], ["stripped"])
        if is_quick:
            assert len(get_updates(queries)) == 1


@needs_postgres
def test_a_value_of_another_type_is_rounded_as_by_save():
    with make_tables("postgres", Special):
        rows = Special.objects.using("postgres")
        for number in (1, 3, 5, 7):
            Special(scaled=number).save(using="postgres")
        saved = read("postgres", "extra_special", "scaled")
        objects = list(rows.order_by("pk"))
        for obj, number in zip(objects, (1, 3, 5, 7), strict=True):
            obj.scaled = number
        rows.update(plain="")
        get_database("postgres").write_objects(objects, get_fields(Special, ["scaled"], "x"))
        assert read("postgres", "extra_special", "scaled") == saved


def test_an_expression_for_a_special_field_is_not_prepared_twice(db_alias):
    with make_tables(db_alias, Special):
        rows = Special.objects.using(db_alias)
        objects = rows.bulk_create([Special(plain="a"), Special(plain="b")])
        for obj in objects:
            obj.secret, obj.plain = Concat(F("plain"), Value("z")), Upper("plain")
        get_database(db_alias).write_objects(objects, get_fields(Special, ["secret", "plain"], "x"))
        assert read(db_alias, "extra_special", "secret") == ["AZ", "BZ"]
        assert read(db_alias, "extra_special", "plain") == ["A", "B"]


@needs_postgres
def test_an_expression_that_is_too_long_is_refused_and_not_cut():
    with make_tables("postgres", Special):
        (obj,) = Special.objects.using("postgres").bulk_create([Special(plain="12345")])
        obj.plain = Concat(F("plain"), F("plain"))
        with pytest.raises(DatabaseError, match="too long"):
            get_database("postgres").write_objects([obj], get_fields(Special, ["plain"], "x"))


class Both(Extra):
    data = models.JSONField(null=True)
    number = models.IntegerField(default=0)


def test_json_null_besides_an_expression(db_alias):

    with make_tables(db_alias, Both):
        (obj,) = Both.objects.using(db_alias).bulk_create([Both(data={})])
        obj.data, obj.number = Value(None, models.JSONField()), F("number") + 1
        get_database(db_alias).write_objects([obj], get_fields(Both, ["data", "number"], "x"))
        assert Both.objects.using(db_alias).filter(data=Value(None, models.JSONField()), number=1).exists()


class Letter(models.TextChoices):
    A = "a"
    B = "b"


def test_kinds_of_strings_may_be_mixed(db_alias):
    objects = City.objects.using(db_alias).bulk_create([City(name="1"), City(name="2"), City(name="3")])
    for city, slug in zip(objects, (mark_safe("x"), Letter.B, "y"), strict=True):
        city.slug = slug
    with CaptureQueriesContext(connections[db_alias]) as queries:
        get_database(db_alias).write_objects(objects, get_fields(City, ["slug"], "x"))
    assert len(queries) == 1
    assert set(City.objects.using(db_alias).values_list("slug", flat=True)) == {"x", "b", "y"}


class TypedField(models.Field):
    """A field whose type is the database's own."""

    def __init__(self, *args, column_type="", **options):
        super().__init__(*args, **options)
        self.column_type = column_type

    def deconstruct(self):
        name, path, args, options = super().deconstruct()
        return name, path, args, {**options, "column_type": self.column_type}

    def db_type(self, connection):
        return self.column_type


class NarrowField(models.CharField):
    """A CharField but for its type."""

    def db_type(self, connection):
        return "short"


class ReferringField(models.CharField):
    """Its type is another one for those that refer to it."""

    def rel_db_type(self, connection):
        return "varchar(3)"


@needs_postgres
def test_types_of_the_databases_own():
    class Typed(Extra):
        domain = TypedField(column_type="short", null=True)
        narrow = NarrowField(max_length=30, null=True)
        point = TypedField(column_type="pair", null=True)
        bits = TypedField(column_type="bit varying(4)", null=True)
        word = ReferringField(max_length=9, null=True)

    values = {"domain": "ab", "narrow": "ab", "point": (1, "x, y"), "bits": "101", "word": "12345"}
    too_long = {"domain": "abcdef", "narrow": "abcdef", "bits": "10101", "word": "1234567890"}
    connection = connections["postgres"]
    with connection.cursor() as cursor:
        cursor.execute("CREATE DOMAIN short AS varchar(5)")
        cursor.execute("CREATE TYPE pair AS (a integer, b text)")
    try:
        with make_tables("postgres", Typed):
            objects = Typed.objects.using("postgres").bulk_create([Typed(), Typed()])
            for name, value in values.items():
                for obj in objects:
                    setattr(obj, name, value)
                get_database("postgres").write_objects(objects, get_fields(Typed, [name], "x"))
            expected = {**values, "point": '(1,"x, y")'}
            for name, value in expected.items():
                assert read("postgres", "extra_typed", f'"{name}"::text') == [value] * 2
            for name, value in too_long.items():
                setattr(objects[0], name, value)
                with pytest.raises(DatabaseError, match="too long"):
                    get_database("postgres").write_objects(objects, get_fields(Typed, [name], "x"))
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TYPE pair")
            cursor.execute("DROP DOMAIN short")


class PrefixedKey(models.CharField):
    """Python knows the key without its prefix."""

    def get_prep_value(self, value):
        return None if value is None else f"k-{value}"

    def from_db_value(self, value, expression, connection):
        return value and value.removeprefix("k-")

    def get_placeholder(self, value, compiler, connection):
        return "lower(%s)"

    def get_placeholder_sql(self, value, compiler, connection):  # Django 6.1 asks for this one
        return "lower(%s)", (value,)


class Keyed(Extra):
    id = PrefixedKey(primary_key=True, max_length=20)
    text = models.CharField(max_length=9, default="")


def test_rows_are_found_by_a_key_that_changes_its_values(db_alias):

    with make_tables(db_alias, Keyed):
        rows = Keyed.objects.using(db_alias)
        for key in "abc":
            Keyed(id=key).save(using=db_alias)
        objects = list(rows.order_by("pk"))
        for obj in objects[:2]:
            obj.text = obj.pk
        get_database(db_alias).write_objects(objects[:2], get_fields(Keyed, ["text"], "x"))
        assert list(rows.order_by("pk").values_list("pk", "text")) == [("a", "a"), ("b", "b"), ("c", "")]


class V(Extra):
    column1 = models.CharField(max_length=9, default="")
    v = models.CharField(max_length=9, default="", db_column="v")
    braces = models.CharField(max_length=9, default="", db_column="{0} {x} {}")
    quotes = models.CharField(max_length=9, default="", db_column="it's (1)")

    class Meta(Extra.Meta):
        db_table = "v"


class Odd(V):
    more = models.CharField(max_length=9, default="", db_column="column2")

    class Meta(Extra.Meta):
        db_table = "{odd} tab'le"


@pytest.mark.parametrize("model", [V, Odd])
def test_odd_names_of_tables_and_columns(db_alias, model):
    names = [field.name for field in model._meta.concrete_fields if not field.primary_key]
    with make_tables(db_alias, V, Odd):
        for _ in range(2):
            model().save(using=db_alias)
        objects = list(model.objects.using(db_alias).order_by("pk"))
        for obj in objects:
            for name in names:
                setattr(obj, name, f"{name} {obj.pk}")
        get_database(db_alias).write_objects(objects, get_fields(model, names, "x"))
        for obj in model.objects.using(db_alias):
            assert {getattr(obj, name) == f"{name} {obj.pk}" for name in names} == {True}


class InSchema(Extra):
    text = models.CharField(max_length=9, default="")

    class Meta(Extra.Meta):
        db_table = '"Site data"."rows"'


class InSchemaByTrick(Extra):
    text = models.CharField(max_length=9, default="")

    class Meta(Extra.Meta):
        db_table = 'Site data"."rows'


@needs_postgres
@pytest.mark.parametrize("model", [InSchema, InSchemaByTrick])
def test_a_table_in_another_schema(model):
    with connections["postgres"].cursor() as cursor:
        cursor.execute('CREATE SCHEMA "Site data"')
        cursor.execute('CREATE TABLE "Site data"."rows" (id serial PRIMARY KEY, text varchar(9) NOT NULL)')
    try:
        model.objects.using("postgres").bulk_create([model() for _ in range(5)])

        def change(obj, alias):
            obj.text = f"t{obj.pk}"

        assert run(make_mapper(model, ["text"], change), "postgres").status == "applied"
        assert {obj.text == f"t{obj.pk}" for obj in model.objects.using("postgres")} == {True}
    finally:
        with connections["postgres"].cursor() as cursor:
            cursor.execute('DROP SCHEMA "Site data" CASCADE')


@needs_postgres
def test_ranges_and_hstore_are_left_to_django():
    fields = pytest.importorskip("django.contrib.postgres.fields")
    ranges = pytest.importorskip("django.db.backends.postgresql.psycopg_any")

    class Ranges(Extra):
        span = fields.IntegerRangeField(null=True)
        spans = fields.ArrayField(fields.IntegerRangeField(), null=True)

    with make_tables("postgres", Ranges):
        objects = Ranges.objects.using("postgres").bulk_create([Ranges(), Ranges()])
        for obj in objects:
            obj.span, obj.spans = (1, 5), [(1, 2), (3, 4)]
        get_database("postgres").write_objects(objects, get_fields(Ranges, ["span", "spans"], "x"))
        for obj in Ranges.objects.using("postgres"):
            assert obj.span == ranges.NumericRange(1, 5)
            assert obj.spans == [ranges.NumericRange(1, 2), ranges.NumericRange(3, 4)]


class Document(Extra):
    file = models.FileField()


@pytest.mark.parametrize("looks_at_it", [False, True])
def test_a_new_file_is_stored_although_its_name_is_the_old_one(db_alias, tmp_path, settings, looks_at_it):
    class Migration(MapperMigration):
        update_fields = ["file"]

        def get_queryset(self, db_alias):
            return Document.objects.using(db_alias)

        def operation(self, document, db_alias):
            document.file = ContentFile(b"new", name=document.file.name)
            if looks_at_it:
                assert document.file.size

    settings.MEDIA_ROOT = str(tmp_path)
    with make_tables(db_alias, Document):
        document = Document()
        document.file.save("a.txt", ContentFile(b"old"), save=False)
        document.save(using=db_alias)
        progress = run(Migration, db_alias)
        assert (progress.status, progress.changed) == ("applied", 1)
        with Document.objects.using(db_alias).get().file.open() as file:
            assert file.read() == b"new"
