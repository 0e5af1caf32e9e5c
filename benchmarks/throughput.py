"""Is the engine slower than the loop that a person writes by hand? ``python -m benchmarks.throughput``.

Both go through the same rows and set a slug and a counter. The loop by hand reads batches by key, writes them with
``bulk_update`` (or, for comparison, ``executemany``), and keeps no account of what is done. The runs alternate, and
each begins with the same table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

from benchmarks import ground  # isort: skip  (sets Django up)
from django.db import connections, transaction
from django.db.models import QuerySet
from django.utils.text import slugify

from massmigration import MapperMigration
from tests.testapp.models import City

HAND_SIZES = (1_000, 2_000)


def change(city: City) -> None:
    """Do to one city what both ways do."""
    city.slug = slugify(city.name, allow_unicode=True)
    city.visits += 1


class Migration(MapperMigration):
    """Slug and counter, with the engine."""

    update_fields = ["slug", "visits"]

    def get_queryset(self, db_alias: str) -> QuerySet[Any]:
        """Return all cities."""
        return City.objects.using(db_alias)

    def operation(self, obj: Any, db_alias: str) -> None:
        """Set slug and counter."""
        change(obj)


def run_engine(alias: str) -> None:
    """Run the migration with one worker."""
    ground.run(Migration("testapp", "0001_throughput"), alias)


def run_by_hand(alias: str, size: int) -> None:
    """Run the loop that a person writes."""
    for cities in _read_batches(alias, size):
        City.objects.using(alias).bulk_update(cities, ["slug", "visits"])


def run_by_skilled_hand(alias: str, size: int) -> None:
    """Run the loop of a person who knows that ``bulk_update`` is slow, and writes SQL."""
    for cities in _read_batches(alias, size):
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            cursor.executemany(
                "UPDATE testapp_city SET slug = %s, visits = %s WHERE id = %s",
                [(city.slug, city.visits, city.pk) for city in cities],
            )


def _read_batches(alias: str, size: int) -> Iterator[list[City]]:
    last = 0
    while cities := list(City.objects.using(alias).filter(pk__gt=last).order_by("pk")[:size]):
        for city in cities:
            change(city)
        yield cities
        last = cities[-1].pk


def measure(alias: str, ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each way took in each round; the rows are looked at after each run."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in _rotate(list(ways), number):
            ground.restore_copy(alias)
            began_at = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - began_at)
            wrong = City.objects.using(alias).exclude(visits=1).count()
            if wrong:
                raise SystemExit(f"{name}: {wrong} rows were not visited once on {ground.get_name(alias)}.")
    return seconds


def _rotate(names: Sequence[str], by: int) -> Iterable[str]:
    by %= len(names)
    return [*names[by:], *names[:by]]


def main() -> None:
    """Measure on every database and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is run (default: 5)")
    parser.add_argument("--sizes", type=int, nargs="*", default=HAND_SIZES, help="batch sizes of the loops by hand")
    parser.add_argument("--database", action="append", help="only on this alias")
    options = parser.parse_args()
    for alias in options.database or ground.prepare():
        ground.prepare()
        count = ground.fill_with_cities(alias)
        ground.keep_copy(alias)
        ways: dict[str, Callable[[], None]] = {"massmigration": partial(run_engine, alias)}
        for size in options.sizes:
            ways[f"bulk_update, {size:,}"] = partial(run_by_hand, alias, size)
            ways[f"executemany, {size:,}"] = partial(run_by_skilled_hand, alias, size)
        seconds = measure(alias, ways, options.rounds)
        _print(ground.get_name(alias), count, seconds)


def _print(name: str, count: int, seconds: dict[str, list[float]]) -> None:
    engine = seconds["massmigration"]
    print(f"\n{name}, {count:,} rows, median of {len(engine)} runs")
    for way, times in seconds.items():
        ratio = median(mine / other for mine, other in zip(engine, times, strict=True))
        spread = f"{min(times):.2f}–{max(times):.2f} s"
        print(
            f"  {way:<18} {median(times):6.2f} s ({spread}) {count / median(times):>9,.0f} rows/s; "
            f"massmigration takes {ratio:.2f} of its time"
        )


if __name__ == "__main__":
    main()
