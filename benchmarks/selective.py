"""What does a filter cost that matches ten of 1,000,000 rows, without an index? ``python -m benchmarks.selective``.

The counts at the start, of all rows and of those that match, see the whole table by design and are given up after a
second.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks import ground  # isort: skip  (sets Django up)
from django.db.models import QuerySet

from massmigration import MapperMigration
from tests.testapp.models import City

MATCHING = 10


class Migration(MapperMigration):
    """Works the few rows whose flag is on."""

    update_fields = ["visits"]

    def get_queryset(self, db_alias: str) -> QuerySet[Any]:
        """Return the rows whose flag is on; the flag has no index."""
        return City.objects.using(db_alias).filter(flag=True)

    def operation(self, obj: Any, db_alias: str) -> None:
        """Count the visit."""
        obj.visits += 1


class Clock:
    """Measures each statement."""

    def __init__(self) -> None:
        self.seconds: list[tuple[float, str]] = []

    def note(self, sql: str, execute: Any) -> Any:
        """Execute a statement and note how long it took."""
        began_at = time.perf_counter()
        try:
            return execute()
        finally:
            self.seconds.append((time.perf_counter() - began_at, sql))


def main() -> None:
    """Measure on every database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    count = parser.parse_args().rows
    for alias in ground.prepare():
        ground.fill(alias, count)
        keys = [number * (count // MATCHING) + 1 for number in range(MATCHING)]
        City.objects.using(alias).filter(pk__in=keys).update(flag=True)
        clock = Clock()
        with ground.watch_queries(alias, clock.note):
            began_at = time.perf_counter()
            progress = ground.run(Migration("testapp", "0001_selective"), alias)
            seconds = time.perf_counter() - began_at
        assert progress.processed == MATCHING
        assert City.objects.using(alias).filter(visits=1).count() == MATCHING
        reading = max(took for took, sql in clock.seconds if 'FROM "testapp_city"' in sql and "COUNT(" not in sql)
        counting = max(took for took, sql in clock.seconds if "COUNT(" in sql)
        print(
            f"\n{ground.get_name(alias)}, {MATCHING} of {count:,} rows: {len(clock.seconds)} statements in all, "
            f"{seconds:.2f} s; the longest that looked for rows took {reading * 1000:.0f} ms, the longest count "
            f"{counting * 1000:.0f} ms"
        )


if __name__ == "__main__":
    main()
