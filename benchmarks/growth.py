"""Do batches get dearer, or the process larger, as the table grows? ``python -m benchmarks.growth``.

Each run is a process of its own, whose peak memory the system tells. Statements are counted between two batches, so
that the question whether to go on, which each batch begins with, is one of them; COMMIT is not.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks import ground  # isort: skip  (sets Django up)
from django.db.models import QuerySet

from massmigration import MapperMigration
from tests.testapp.models import City

COUNTS = (10_000, 100_000, 1_000_000)


class Tuned(MapperMigration):
    """A mapper whose batch size finds itself."""

    update_fields = ["slug", "visits"]

    def get_queryset(self, db_alias: str) -> QuerySet[Any]:
        """Return all cities."""
        return City.objects.using(db_alias)

    def operation(self, obj: Any, db_alias: str) -> None:
        """Set slug and counter."""
        obj.slug = obj.name.lower()
        obj.visits += 1


class Fixed(Tuned):
    """The same with batches of 1,000."""

    batch_size = 1_000


WAYS: dict[str, type[Tuned]] = {"tuned": Tuned, "1,000": Fixed}


class Counter:
    """Counts the statements of each batch, leaving out those that also take or hand back a shard."""

    def __init__(self) -> None:
        self.per_batch: list[int] = []
        self._statements = 0
        self._is_plain = False

    def note(self, sql: str, execute: Any) -> Any:
        """Note a statement and execute it."""
        self._statements += 1
        if sql.startswith('UPDATE "massmigration_shard"') and '"status" = ' in sql.partition("WHERE")[0]:
            self._is_plain = False
        return execute()

    def note_batch(self) -> None:
        """Note the end of a batch."""
        if self._is_plain and self._statements:
            self.per_batch.append(self._statements)
        self._statements, self._is_plain = 0, True


def measure(alias: str, way: str) -> None:
    """Run once and print what was measured, as JSON."""
    counter, before = Counter(), get_peak()
    with ground.watch_queries(alias, counter.note):
        began_at = time.perf_counter()
        progress = ground.run(WAYS[way]("testapp", "0001_growth"), alias, counter.note_batch)
        seconds = time.perf_counter() - began_at
    assert progress.processed
    facts = {
        "least": min(counter.per_batch),
        "most": max(counter.per_batch),
        "batches": len(counter.per_batch),
        "rate": progress.processed / seconds,
        "before": before,
        "peak": get_peak(),
    }
    print(json.dumps(facts))


def get_peak() -> float:
    """Return the largest resident size that this process has had so far, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1_000_000 if sys.platform == "darwin" else 1_000)


def main() -> None:
    """Measure on every database, or be one of the processes that do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--child", nargs=2, metavar=("ALIAS", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(*options.child)
        return
    for alias in ground.prepare():
        print(f"\n{ground.get_name(alias)}: statements per batch, and peak memory of the process (before the run)")
        for way in WAYS:
            for count in options.rows:
                ground.fill(alias, count)
                print(f"  batches {way:<6} {count:>9,} rows: {_describe(_ask(alias, way))}", flush=True)


def _ask(alias: str, way: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.growth", "--child", alias, way]
    # A process begins with the peak of the one that it was forked from: with the shell's instead of ours.
    answer = subprocess.run(
        ["/bin/sh", "-c", '"$@"; exit', "sh", *command], stdout=subprocess.PIPE, text=True, check=True
    )
    facts: dict[str, float] = json.loads(answer.stdout)
    return facts


def _describe(facts: dict[str, float]) -> str:
    return (
        f"{facts['least']:.0f} to {facts['most']:.0f} statements, {facts['peak']:4.0f} MB ({facts['before']:.0f} MB), "
        f"{facts['rate']:,.0f} rows/s"
    )


if __name__ == "__main__":
    main()
