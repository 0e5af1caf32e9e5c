"""What people look at costs the same number of queries for one failure, shard and migration as for very many."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from massmigration import api, executor, recorder, states
from massmigration.engine import progress
from massmigration.executor.accept import accept
from massmigration.models import MigrationAttempt, MigrationFailure, MigrationRecord, MigrationShard
from tests.engine.support import AUTHOR, make, work
from tests.engine.test_failures import Mapper
from tests.test_admin import DATABASES, KEY, MANAGE, PAGE, log_in, put_into

pytestmark = pytest.mark.django_db(databases=DATABASES)

FAILURES = f"{PAGE}failures/"


@pytest.fixture(autouse=True)
def quiet_queue(settings) -> None:
    settings.MASSMIGRATION_BACKEND = "tests.jobs.backends.SilentBackend"


@pytest.fixture
def operator() -> Client:
    return log_in("operator", "view_migrationrecord", "run_migration")


def fill(number: int, *, key: str = KEY, status: str = states.FAILED, db_alias: str = "default") -> uuid.UUID:
    """Make a run with this number of shards and of failures, half of them accepted."""
    app_label, name = key.split(":")
    attempt = MigrationAttempt(key=key, total=number, processed=number, shards=number, finished_at=timezone.now())
    attempt.save(using=db_alias)
    MigrationRecord.objects.using(db_alias).update_or_create(
        key=key,
        defaults={
            "app_label": app_label,
            "name": name,
            "status": status,
            "attempt_uuid": attempt.uuid,
            "reason": states.FAILURES_OPEN if status == states.FAILED else "",
        },
    )
    shards = [
        MigrationShard(
            id=MigrationShard.make_id(attempt.uuid, MigrationShard.RANGE, 1, each),
            attempt_uuid=attempt.uuid,
            key=key,
            kind=MigrationShard.RANGE,
            number=each,
            status=MigrationShard.DONE,
        )
        for each in range(number)
    ]
    plan = MigrationShard(
        id=MigrationShard.make_id(attempt.uuid, MigrationShard.PLAN),
        attempt_uuid=attempt.uuid,
        key=key,
        kind=MigrationShard.PLAN,
        status=MigrationShard.DONE,
    )
    MigrationShard.objects.using(db_alias).bulk_create([plan, *shards])
    failures = [
        MigrationFailure(
            id=uuid.uuid4().hex,
            attempt_uuid=attempt.uuid,
            key=key,
            shard_id=shards[each % number].pk,
            object_key=str(each),
            object_repr=f"City {each}",
            error_class="ValueError",
            message="under water",
            traceback="Traceback\n" * 20,
            status=[MigrationFailure.OPEN, MigrationFailure.ACCEPTED][each % 2],
            is_passed=True,
        )
        for each in range(2 * number)
    ]
    MigrationFailure.objects.using(db_alias).bulk_create(failures)
    return attempt.uuid


def count(look: Callable[[], Any]) -> int:
    """Return how many queries it takes on all databases."""
    contexts = [CaptureQueriesContext(connections[alias]) for alias in connections]
    for context in contexts:
        context.__enter__()
    look()
    for context in contexts:
        context.__exit__(None, None, None)
    return sum(map(len, contexts))


LOOKS: dict[str, Callable[[Client], Any]] = {
    "manage": lambda client: client.get(MANAGE),
    "manage rows": lambda client: client.get(f"{MANAGE}rows/"),
    "detail": lambda client: client.get(PAGE),
    "detail rows": lambda client: client.get(f"{PAGE}rows/"),
    "failures": lambda client: client.get(FAILURES),
    "last page": lambda client: client.get(f"{FAILURES}?page=9999&all=1"),
    "question": lambda client: client.get(f"{PAGE}accept/"),
    "changelist": lambda client: client.get("/admin/massmigration/migrationrecord/"),
    "progress": lambda client: api.get_progress(KEY),
    "showmassmigrations": lambda client: call_command("showmassmigrations"),
    "json": lambda client: call_command("showmassmigrations", "--format=json"),
    "failures command": lambda client: call_command("massmigration", "failures", *KEY.split(":")),
    "failures with tracebacks": lambda client: call_command(
        "massmigration", "failures", *KEY.split(":"), "--traceback", "--all"
    ),
    "all failures": lambda client: call_command("massmigration", "failures", *KEY.split(":"), "--all", "--limit=9999"),
    "events": lambda client: call_command("massmigration", "events", "adminapp"),
}


def count_each(operator: Client, names: Iterable[str]) -> dict[str, int]:
    """Return how many queries each look takes, once permissions and content types are remembered."""
    for name in names:
        LOOKS[name](operator)
    return {name: count(lambda name=name: LOOKS[name](operator)) for name in names}


def test_many_failures_and_shards_take_as_many_queries_as_few(operator: Client) -> None:
    fill(60)  # more than one page of them
    few = count_each(operator, LOOKS)
    fill(600)
    assert count_each(operator, LOOKS) == few
    assert max(few.values()) < 30


def test_many_migrations_take_as_many_queries_as_few(operator: Client) -> None:
    names = ["manage", "manage rows", "showmassmigrations", "json", "changelist"]
    for each in range(2):
        fill(1, key=f"gone:{each:04d}_lost", status=states.APPLIED)
    few = count_each(operator, names)
    for each in range(2, 60):
        fill(1, key=f"gone:{each:04d}_lost", status=states.APPLIED)
    assert count_each(operator, names) == few
    assert max(few.values()) < 30


@pytest.fixture
def tracebacks_read(django_db_blocker) -> Iterator[Callable[[], int]]:
    """Return how many tracebacks were read by the statements since."""
    statements: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        return execute(sql, params, many, context)

    with connections["default"].execute_wrapper(note):
        yield lambda: sum('"massmigration_failure"."traceback"' in sql and "LIMIT" not in sql for sql in statements)


def test_tracebacks_are_read_for_what_is_shown_only(operator: Client, tracebacks_read) -> None:
    fill(60)
    read = {}
    for name, look in LOOKS.items():
        before = tracebacks_read()
        look(operator)
        read[name] = tracebacks_read() - before
    assert set(read.values()) == {0}, read


def test_pages_say_how_many_there_are(operator: Client) -> None:
    fill(300)
    page = operator.get(PAGE).content.decode()
    assert "the first 20 of 600" in page
    assert "200 of 301, those with work left first" in page
    page = operator.get(FAILURES).content.decode()
    assert "300 open failures" in page
    assert "the 300 that were retried or accepted" in page
    assert page.count("<details>") == 50
    page = operator.get(f"{FAILURES}?all=1&page=12").content.decode()
    assert "551 to 600" in page
    page = operator.get(f"{PAGE}accept/").content.decode()
    assert "the first 20 of 300" in page


def test_all_are_listed_with_few_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    fill(75)
    import json

    for limit, expected in ((1000, 75), (60, 60), (40, 40)):
        call_command("massmigration", "failures", *KEY.split(":"), f"--limit={limit}", "--format=json")
        rows = json.loads(capsys.readouterr().out)
        assert len({row["id"] for row in rows}) == len(rows) == expected
    call_command("massmigration", "failures", *KEY.split(":"), "--limit=60")
    assert "and 15 more; --limit=75 shows all" in capsys.readouterr().out
    ids = {failure.pk for failure in api.iterate_failures(KEY)}
    assert len(ids) == 150


@pytest.mark.parametrize("number", [10, 1_000])
def test_accept_takes_as_many_statements_for_many(db_alias: str, number: int) -> None:
    put_into(states.NOT_RUN)
    attempt_uuid = fill(number, db_alias=db_alias)
    MigrationShard.objects.using(db_alias).create(
        id="end", attempt_uuid=attempt_uuid, key=KEY, kind=MigrationShard.FINISH, status=MigrationShard.FAILED
    )
    migration = api.get_migration(KEY)
    done: list[Any] = []
    with CaptureQueriesContext(connections[db_alias]) as queries:
        done.append(accept(migration, db_alias, AUTHOR, "because", enqueue=False))
    assert (done[0].accepted_count, done[0].open_count, done[0].goes_on) == (number, 0, True)
    assert len(queries) < 40


@pytest.mark.django_db(transaction=True, databases=DATABASES)
def test_retry_lists_keys_in_shards_of_a_bounded_size(db_alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each object is visited once again, and those that were accepted are not."""
    from tests.testapp.models import City

    monkeypatch.setattr("massmigration.executor.reopen.KEYS_PER_SHARD", 40)
    monkeypatch.setattr("massmigration.executor.reopen.PAGE", 30)
    City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(200))
    bad = set(City.objects.using(db_alias).order_by("pk")[:110].values_list("name", flat=True))

    class Skipping(Mapper):
        on_error = "skip"
        max_failures = 1000

        def operation(self, city, db_alias):
            if city.name in bad:
                raise ValueError("no")
            city.visits += 1

    migration = make(Skipping)
    executor.start(migration, db_alias, AUTHOR, enqueue=False)
    assert work(migration, db_alias).status == states.FAILED
    record = recorder.get_record(migration.key, db_alias)
    first = MigrationFailure.objects.using(db_alias).order_by("pk").first()
    accept(migration, db_alias, AUTHOR, "because", [first.pk], enqueue=False)
    bad.clear()
    with CaptureQueriesContext(connections[db_alias]) as queries:
        executor.retry(migration, db_alias, AUTHOR, enqueue=False)
    pages = [query["sql"] for query in queries if query["sql"].endswith("LIMIT 30")]
    assert len(pages) == 4, "109 failures are read in pages, which need no server-side cursor"
    payloads = [shard.payload for shard in recorder.get_shards(record.attempt_uuid, db_alias) if shard.payload]
    assert sorted(len(payload["keys"]) for payload in payloads) == [29, 40, 40]
    assert work(migration, db_alias).status == states.APPLIED
    visits = dict(City.objects.using(db_alias).values_list("pk", "visits"))
    assert [pk for pk, number in visits.items() if number != 1] == [int(first.object_key)]


@pytest.mark.django_db(transaction=True, databases=DATABASES)
@pytest.mark.parametrize("status", [states.ENQUEUED, states.RUNNING, states.PAUSED, states.FAILED, states.APPLIED])
def test_overview_says_what_the_page_of_one_migration_says(db_alias: str, status: str) -> None:
    from datetime import timedelta

    attempt_uuid = fill(3, status=status, db_alias=db_alias)
    now = timezone.now()
    shards = MigrationShard.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    live = {"status": "running", "worker": "a:1:x", "lease_expires_at": now + timedelta(seconds=60), "rate": 5.0}
    shards.filter(number=1).update(**live, last_progress_at=now, processed=7, changed=3)
    shards.filter(number=2).update(status="ready", not_before=now + timedelta(seconds=60), waiting_for="a quota")
    if status in states.ACTIVE:
        MigrationAttempt.objects.using(db_alias).update(processed=None, finished_at=None)
    for _ in range(2):
        migration = api.get_migration(KEY)
        one = progress.get_progress(progress.Subject(KEY, migration), db_alias)
        [row] = progress.get_all([progress.Subject(KEY, migration)], db_alias)
        for name in one.__dataclass_fields__:
            if name not in ("shard_rows", "stalled_since"):
                assert (name, getattr(row, name)) == (name, getattr(one, name))
        shards.update(status="running", lease_expires_at=now - timedelta(days=1), waiting_for="", worker="b:2:y")
