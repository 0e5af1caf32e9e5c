"""No value of a row reaches what we store, show or log of an error, and no text is refused by a database."""

from __future__ import annotations

import builtins
import logging
import sys
import traceback

import pytest
from django.core.management import call_command
from django.db import DataError, Error, IntegrityError, OperationalError, connections, transaction

from massmigration import (
    BaseMigration,
    BatchMigration,
    CustomMigration,
    MapperMigration,
    RetryLater,
    SimpleMigration,
    executor,
    states,
)
from massmigration.databases.redaction import (
    clean,
    describe,
    flatten,
    format_traceback,
    get_message,
    make_harmless,
    redact,
)
from massmigration.models import MigrationAttempt, MigrationEvent, MigrationFailure, MigrationRecord, MigrationShard
from tests.engine.support import AUTHOR, make, run, start, work
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

SECRET = "pbkdf2$correct-horse"
TABLES = [MigrationRecord, MigrationAttempt, MigrationShard, MigrationFailure, MigrationEvent]

on_postgres = pytest.mark.needs_postgres


@pytest.fixture(autouse=True)
def cities(request: pytest.FixtureRequest) -> None:
    for alias in ("default", "postgres"):
        if alias in connections:
            City.objects.using(alias).bulk_create(City(name=f"City {number}", note=SECRET) for number in range(3))


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture):
    """Return all that the handlers of our logger would write: lines, tracebacks, fields."""
    caplog.set_level(logging.DEBUG, logger="massmigration")

    def get() -> str:
        formatter = logging.Formatter("%(levelname)s %(message)s")
        records = [record for record in caplog.records if record.name == "massmigration"]
        return "\n".join(f"{formatter.format(record)} {getattr(record, 'json_fields', '')}" for record in records)

    return get


def get_stored(db_alias: str) -> str:
    """Return all that our tables hold, as text."""
    rows = [list(table._default_manager.using(db_alias).values()) for table in TABLES]
    return "\n".join(str(row) for found in rows for row in found)


def make_null(city: City) -> None:
    city.name = None
    city.save()


class Mapper(MapperMigration):
    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        make_null(city)


class Skipping(Mapper):
    on_error = "skip"
    max_failures = 5


class Quoting(Mapper):
    """Puts the database's message into one of its own."""

    def operation(self, city, db_alias):
        try:
            make_null(city)
        except IntegrityError as error:
            raise ValueError(f"{city} was not saved: {error} ({error!r})") from error


class Suppressing(Mapper):
    def operation(self, city, db_alias):
        try:
            make_null(city)
        except IntegrityError as error:
            text = str(error)
        raise ValueError(text)


class Grouping(Mapper):
    def operation(self, city, db_alias):
        try:
            make_null(city)
        except IntegrityError as error:
            error.__notes__ = [f"a note: {error}"]
            group = builtins.ExceptionGroup  # type: ignore[attr-defined, unused-ignore]
            raise group("some errors", [error, ValueError(str(error))]) from error


class WritingBack(Mapper):
    update_fields = ["name"]

    def operation(self, city, db_alias):
        city.name = None


class Batch(BatchMigration):
    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, queryset, db_alias):
        queryset.update(name=None)


class Custom(CustomMigration):
    def get_items(self, shard, cursor, db_alias):
        rows = City.objects.using(db_alias).filter(pk__gt=cursor or 0).order_by("pk")
        yield from rows.values_list("pk", "pk")

    def operation(self, item, db_alias):
        City.objects.using(db_alias).filter(pk=item).update(name=None)


class Simple(SimpleMigration):
    def operation(self, db_alias):
        City.objects.using(db_alias).update(name=None)


class Planning(Mapper):
    """Fails while it is planned."""

    def get_queryset(self, db_alias):
        if MigrationAttempt.objects.using(db_alias).exists():
            make_null(City.objects.using(db_alias).first())
        return super().get_queryset(db_alias)


class Verifying(SimpleMigration):
    def operation(self, db_alias):
        pass

    def verify(self, db_alias):
        make_null(City.objects.using(db_alias).first())


class Saying(Verifying):
    """Says what is wrong in the words of the database."""

    def verify(self, db_alias):
        try:
            with transaction.atomic(using=db_alias):
                make_null(City.objects.using(db_alias).first())
        except IntegrityError as error:
            return f"not right: {error}"


class Launching(BaseMigration):
    def launch(self, db_alias):
        try:
            with transaction.atomic(using=db_alias):
                make_null(City.objects.using(db_alias).first())
        except IntegrityError as error:
            self.mark_as_errored(db_alias, error)


class LaunchingWithText(Launching):
    def launch(self, db_alias):
        try:
            with transaction.atomic(using=db_alias):
                make_null(City.objects.using(db_alias).first())
        except IntegrityError as error:
            self.mark_as_errored(db_alias, f"it failed: {error}")


KINDS: list[type[BaseMigration]] = [
    Mapper,
    Skipping,
    Quoting,
    Suppressing,
    WritingBack,
    Batch,
    Custom,
    Simple,
    Planning,
    Verifying,
    Saying,
]
KINDS += [Launching, LaunchingWithText]
if sys.version_info >= (3, 11):
    KINDS.append(Grouping)


@on_postgres
@pytest.mark.parametrize("kind", KINDS)
def test_no_row_is_told(kind, logged, settings) -> None:
    progress = run(kind, "postgres")
    assert progress.status == states.FAILED
    stored = get_stored("postgres")
    assert "null value in column" in stored
    assert "null value in column" in logged()
    for text in (stored, logged(), str(progress)):
        assert SECRET not in text
        assert "DETAIL" not in text


@on_postgres
def test_setting_keeps_it(logged, settings) -> None:
    settings.MASSMIGRATION_SHOW_DATABASE_DETAILS = True
    run(Mapper, "postgres")
    assert SECRET in get_stored("postgres")
    assert SECRET in logged()
    assert SECRET in MigrationFailure.objects.using("postgres").first().traceback


@on_postgres
def test_object_that_failed_is_named_by_its_key() -> None:
    run(Mapper, "postgres")
    failure = MigrationFailure.objects.using("postgres").get()
    first = City.objects.using("postgres").order_by("pk").first()
    assert (failure.object_key, failure.object_repr) == (str(first.pk), "<City whose str() raised TypeError>")
    assert 'null value in column "name" of relation "testapp_city" violates not-null constraint' in failure.message
    assert "make_null(city)" in failure.traceback
    assert "psycopg.errors.NotNullViolation" in failure.traceback
    assert "direct cause" in failure.traceback


@on_postgres
def test_what_a_shard_waits_for_and_repeats(logged, settings) -> None:
    settings.MASSMIGRATION_MAX_RETRIES = 1

    class Transient(Mapper):
        transient_errors = (IntegrityError,)

    migration = make(Transient)
    start(migration, "postgres")
    rounds = iter(range(4))
    work(migration, "postgres", should_stop=lambda: next(rounds, None) is None)
    stored = get_stored("postgres")
    assert "null value in column" in MigrationShard.objects.using("postgres").exclude(waiting_for="").get().waiting_for
    assert SECRET not in stored + logged()

    class Later(Mapper):
        def operation(self, city, db_alias):
            try:
                make_null(city)
            except IntegrityError as error:
                raise RetryLater(60, str(error)) from error

    executor.cancel(migration.key, "postgres", AUTHOR)
    migration = make(Later)
    start(migration, "postgres")
    rounds = iter(range(4))
    work(migration, "postgres", should_stop=lambda: next(rounds, None) is None)
    assert "null value" in MigrationShard.objects.using("postgres").exclude(waiting_for="").get().waiting_for
    assert SECRET not in get_stored("postgres") + logged()


@on_postgres
def test_duplicate_key_in_on_commit_is_logged_without_its_value(logged) -> None:
    class Committing(Mapper):
        def operation(self, city, db_alias):
            def insert() -> None:
                City.objects.using(db_alias).create(pk=city.pk, name="twice", note=SECRET)

            transaction.on_commit(insert, using=db_alias)

    assert run(Committing, "postgres").status == states.APPLIED
    assert "duplicate key value violates unique constraint" in logged()
    assert "already exists" not in logged()


@on_postgres
@pytest.mark.parametrize(
    "verb", ["failures --traceback", "failures --format=json --traceback", "events", "events --format=json"]
)
def test_commands(verb: str, capsys) -> None:
    run(Skipping, "postgres")
    call_command("massmigration", *verb.split(), "--database=postgres")
    shown = capsys.readouterr().out
    assert "null value in column" in shown or verb.startswith("events")
    assert SECRET not in shown


POSTGRES_ERRORS = [
    ("SELECT 'secret'::integer", 'invalid input syntax for type integer: "…"'),
    ("SELECT 'secret'::date", 'invalid input syntax for type date: "…"'),
    ("SELECT '2020-99-77'::date", 'date/time field value out of range: "…"'),
    ("SELECT '99999999999999'::integer", 'value "…" is out of range for type integer'),
    ("SELECT nothing FROM testapp_city WHERE note = 'secret'", 'column "nothing" does not exist'),
    ("INSERT INTO testapp_city (id, name) VALUES (1, 'a'), (1, 'b')", 'null value in column "slug"'),
    ("DO $$ BEGIN RAISE EXCEPTION 'no' USING DETAIL = 'secret', HINT = 'secret'; END $$", "no"),
    ("SELECT ('{\"a\": secret}')::jsonb", "invalid input syntax for type json"),
]


@on_postgres
@pytest.mark.parametrize(("sql", "told"), POSTGRES_ERRORS)
def test_postgres(sql: str, told: str) -> None:
    with connections["postgres"].cursor() as cursor, pytest.raises(Error) as caught:
        cursor.execute(sql)
    assert describe(caught.value).startswith(f"{type(caught.value).__name__}: {told}")
    for text in (describe(caught.value), format_traceback(caught.value)):
        assert "secret" not in text.replace(sql, "")
        assert "LINE 1" not in text


class Diagnosis:
    """What psycopg knows of an error, from a server that speaks German."""

    message_primary = "NULL-Wert in Spalte »name« verletzt Not-Null-Constraint"


def make_german() -> Exception:
    class NotNullViolation(Exception):
        diag = Diagnosis()

    NotNullViolation.__module__ = "psycopg.errors"
    return NotNullViolation(f"{Diagnosis.message_primary}\nDÉTAIL : Fehlgeschlagene Zeile enthält (1, {SECRET}).")


def test_other_languages() -> None:
    error = IntegrityError(str(make_german()))
    error.__cause__ = make_german()
    outer = ValueError(f"not saved: {error}")
    outer.__context__ = error
    assert get_message(error) == Diagnosis.message_primary
    assert get_message(outer) == f"not saved: {Diagnosis.message_primary}"
    assert SECRET not in format_traceback(outer)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            IntegrityError(1062, "Duplicate entry 'anna@x.y' for key 'user.email'"),
            "(1062, \"Duplicate entry '…' for key 'user.email'\")",
        ),
        (
            DataError(1366, "Incorrect integer value: 'anna' for column 'age' at row 1"),
            "(1366, \"Incorrect integer value: '…' for column 'age' at row 1\")",
        ),
        (
            DataError(1292, "Truncated incorrect DOUBLE value: 'anna'"),
            "(1292, \"Truncated incorrect DOUBLE value: '…'\")",
        ),
        (
            OperationalError("Could not decode to UTF-8 column 'name' with text 'anna'"),
            "Could not decode to UTF-8 column 'name' with text '…'",
        ),
        (
            IntegrityError(
                "The row in table 'a' with primary key '1' has an invalid foreign key: a.b_id contains a value 'anna' "
                "that does not have a corresponding value in b.id."
            ),
            "The row in table 'a' with primary key '1' has an invalid foreign key: a.b_id contains a value '…' that "
            "does not have a corresponding value in b.id.",
        ),
        (IntegrityError("UNIQUE constraint failed: testapp_city.slug"), "UNIQUE constraint failed: testapp_city.slug"),
        (ValueError("saw: duplicate key\nDETAIL:  Key (email)=(anna) already exists."), "saw: duplicate key"),
        (ValueError("Key (email)=(anna) already exists."), ""),
        (ValueError("it is DETAIL that matters\nand HINTS: none"), "it is DETAIL that matters\nand HINTS: none"),
        (ValueError('the level "anna" is unknown: "anna"'), 'the level "anna" is unknown: "anna"'),
    ],
)
def test_other_databases_and_errors(error: Exception, told: str) -> None:
    assert get_message(error) == told


def test_errors_of_google() -> None:
    exceptions = pytest.importorskip("google.api_core.exceptions")
    entity = 'entity already exists: app: "b~x"\npath <\n  Element { type: "City" name: "anna" }\n>'
    assert get_message(exceptions.AlreadyExists(entity)) == '409 entity already exists: app: "b~x"'
    error = exceptions.InvalidArgument("bad value", details=[{"anna": 1}])
    assert get_message(error) == "400 bad value"
    assert "anna" not in format_traceback(exceptions.RetryError("gave up", exceptions.Aborted("x {anna}")))


def test_chain_is_told_as_python_tells_it() -> None:
    """With nothing to cut, the error itself is given to handlers; else its copy looks the same but for the messages."""
    with pytest.raises(OSError, match="second") as caught:
        chain(KeyError("first"))
    assert make_harmless(caught.value) is caught.value
    assert format_traceback(caught.value) == "".join(traceback.format_exception(caught.value))
    with pytest.raises(OSError, match="second") as caught:
        chain(IntegrityError("bad\nDETAIL:  Key (a)=(anna) already exists."))
    whole = "".join(traceback.format_exception(caught.value))
    assert format_traceback(caught.value) == whole.replace("\nDETAIL:  Key (a)=(anna) already exists.", "")


def chain(error: Exception) -> None:
    try:
        raise error
    except Exception as caught:
        raise OSError("second") from caught


def test_odd_errors_do_no_harm() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert describe(Silent()) == "Silent: <exception str() failed>"
    one, two = ValueError("one"), IntegrityError("two\nDETAIL:  anna")
    one.__context__, two.__context__ = two, one
    assert "anna" not in format_traceback(one)
    deep: BaseException = IntegrityError("x\nDETAIL:  anna")
    for number in range(3_000):
        outer = ValueError(str(number))
        outer.__cause__ = deep
        deep = outer
    assert "anna" not in format_traceback(deep)
    assert describe(ValueError("\x00\ud800")) == "ValueError: \\x00\\ud800"
    assert len(describe(ValueError("Key (" * 400_000))) < 3_000
    assert len(get_message(IntegrityError(" " * 400_000 + "Duplicate entry '" * 10_000))) < 30_000


def test_flatten_keeps_words() -> None:
    assert flatten("Ätna 👩\u200d🚀\u00a0!\t") == "Ätna 👩\u200d🚀\u00a0!\t"
    assert flatten("a\nb\r\x1b[2J\x9b\u2028\u202e\x85\x7f") == "a\\nb\\r\\x1b[2J\\x9b\\u2028\\u202e\\x85\\x7f"
    assert clean("a\x00b\udcff") == "a\\x00b\\udcff"
    assert redact("plain") == "plain"
