"""NUL, lone surrogates, line breaks and control characters, from people, rows and errors: stored, logged and shown."""

from __future__ import annotations

import io
import json
import logging

import pytest
from django.core.management import call_command

from massmigration import MapperMigration, RetryLater, SimpleMigration, api, executor, recorder, states
from massmigration.engine import leases
from massmigration.executor.accept import accept
from massmigration.models import MigrationEvent, MigrationFailure, MigrationRecord, MigrationShard
from massmigration.recorder import Author
from tests.engine.support import AUTHOR, claim_range, make, run, start, work
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

ODD = "a\x00b\udcffc\ud800d"
STORED = "a\\x00b\\udcffc\\ud800d"
FORGED = "fine\nERROR forged\rERROR forged\x1b[2J\x9b1A\u2028ERROR forged\x85ERROR forged"
ANNA = Author(f"anna{ODD}", "api")


def fill(db_alias: str, name: str = "City") -> None:
    City.objects.using(db_alias).bulk_create(City(name=name) for _ in range(3))


class OddError(Exception):
    def __str__(self) -> str:
        return ODD


class OddRepr(City):
    class Meta:
        proxy = True
        app_label = "testapp"

    def __str__(self) -> str:
        return ODD


class Stopping(MapperMigration):
    def get_queryset(self, db_alias):
        return OddRepr.objects.using(db_alias)

    def operation(self, city, db_alias):
        raise OddError


class Skipping(Stopping):
    on_error = "skip"


@pytest.mark.parametrize("kind", [Stopping, Skipping])
def test_failure_can_be_stored_retried_and_accepted(db_alias: str, kind: type[MapperMigration]) -> None:
    fill(db_alias)
    progress = run(kind, db_alias)
    assert progress.status == states.FAILED
    failures = MigrationFailure.objects.using(db_alias).all()
    assert {failure.message for failure in failures} == {STORED}
    assert {failure.object_repr for failure in failures} == {STORED}
    assert STORED in failures[0].traceback
    migration = make(kind)
    executor.retry(migration, db_alias, ANNA, enqueue=False)
    assert work(migration, db_alias).status == states.FAILED
    accept(migration, db_alias, ANNA, f"why {ODD}", enqueue=False)
    event = MigrationEvent.objects.using(db_alias).filter(action="accept").first()
    assert (event.actor, event.parameters["reason"]) == (f"anna{STORED}", f"why {STORED}")
    assert event.detail.endswith(f"why {STORED}")


@pytest.mark.parametrize("says", [lambda: ODD, lambda: (_ for _ in ()).throw(OddError())])
def test_verdict_can_be_stored(db_alias: str, says) -> None:
    class Verifying(SimpleMigration):
        def operation(self, db_alias):
            pass

        def verify(self, db_alias):
            return says()

    assert run(Verifying, db_alias).status == states.FAILED
    assert STORED in MigrationRecord.objects.using(db_alias).get().error


def test_what_a_shard_waits_for_can_be_stored(db_alias: str) -> None:
    fill(db_alias)

    class Resting(Stopping):
        def operation(self, city, db_alias):
            raise RetryLater(60, ODD)

    migration = make(Resting)
    start(migration, db_alias)
    rounds = iter(range(4))
    work(migration, db_alias, should_stop=lambda: next(rounds, None) is None)
    assert STORED in MigrationShard.objects.using(db_alias).exclude(waiting_for="").get().waiting_for


def test_names_of_people_and_workers_can_be_stored(db_alias: str) -> None:
    fill(db_alias)
    migration = make(Stopping)
    executor.start(migration, db_alias, ANNA, enqueue=False)
    attempt = recorder.get_attempt(recorder.get_record(migration.key, db_alias).attempt_uuid, db_alias)
    assert attempt.started_by == f"anna{STORED}"
    shard = claim_range(migration, db_alias, worker=f"host{ODD}")
    assert shard.worker == f"host{STORED}"
    leases.release(shard, db_alias)
    executor.pause(migration.key, db_alias, ANNA)
    executor.fake(migration, db_alias, ANNA)
    executor.reset(migration.key, db_alias, ANNA)
    actors = MigrationEvent.objects.using(db_alias).filter(action__in=["start", "pause", "fake", "reset"])
    assert {event.actor for event in actors} == {f"anna{STORED}"}
    assert len(actors) == 4


class Forging(MapperMigration):
    on_error = "skip"

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        raise ValueError(FORGED)

    def verify(self, db_alias):
        return FORGED


@pytest.fixture
def file():
    """Return a plain log file of our logger, as a site may have one."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("massmigration")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_log_lines_cannot_be_forged(file: io.StringIO) -> None:
    fill("default", name=FORGED)
    migration = make(Forging)
    executor.start(migration, "default", Author(FORGED, "command"), enqueue=False)
    assert work(migration, "default").status == states.FAILED
    accept(migration, "default", Author(FORGED, "api"), FORGED, enqueue=False)
    assert work(migration, "default").status == states.FAILED  # verify()

    class Later(Forging):
        def operation(self, city, db_alias):
            raise RetryLater(60, FORGED)

    executor.restart(make(Later), "default", AUTHOR, enqueue=False)
    rounds = iter(range(4))
    work(make(Later), "default", should_stop=lambda: next(rounds, None) is None)
    text = file.getvalue()
    assert text.count("fine\\nERROR forged") > 6
    assert not [line for line in text.splitlines() if line.startswith("ERROR forged")]
    assert not set(text) & set("\r\x1b\x9b\u2028\x85\x00")
    assert "Traceback (most recent call last):\n" in text


def test_terminal_cannot_be_steered(capsys: pytest.CaptureFixture[str]) -> None:
    fill("default", name=FORGED)
    migration = make(Forging)
    executor.start(migration, "default", Author(FORGED, "command"), enqueue=False)
    work(migration, "default")
    MigrationRecord.objects.create(
        key="testapp:0002_odd", app_label="testapp", name="0002_odd", status=states.FAILED, error=FORGED
    )
    for line in (
        "massmigration failures",
        "massmigration failures --traceback",
        "massmigration failures --format=json",
        "massmigration events",
        "massmigration events --format=json",
        "showmassmigrations",
        "showmassmigrations --format=json",
    ):
        call_command(*line.split())
        shown = capsys.readouterr().out
        assert "forged" in shown
        assert not [part for part in shown.splitlines() if part.startswith("ERROR forged")], line
        assert not set(shown) & set("\r\x1b\x9b\u2028\x85\x00"), line
        if "json" in line:
            assert any(FORGED in str(value) for row in json.loads(shown) for value in row.values())


def test_api_keeps_line_breaks_of_errors() -> None:
    fill("default")

    class Lines(Stopping):
        def operation(self, city, db_alias):
            raise ValueError("one\ntwo")

    run(Lines, "default")
    [failure] = api.get_failures("testapp:0001_test")
    assert failure.message == "one\ntwo"
