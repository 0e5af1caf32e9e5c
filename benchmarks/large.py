"""What do pages, commands and the task handler cost under very much to look at? ``python -m benchmarks.large``.

Each look is a process of its own, once on little and once on much: 100,000 failures, 1,000 shards and 500 migrations.
Statements are those of the second look. Memory is what the whole process needed at its peak.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks import ground  # isort: skip  (sets Django up)
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.test.utils import override_settings
from django.utils import timezone

from massmigration import api, executor, states, tasks
from massmigration.models import MigrationAttempt, MigrationEvent, MigrationFailure, MigrationRecord, MigrationShard
from tests.testapp.models import City

KEY = "adminapp:0001_count_visits"
APP, NAME = KEY.split(":")
PAGE = "/admin/massmigration/migrationrecord/manage/"
SIZES = {"little": (100, 8, 10), "much": (100_000, 1_000, 500)}
TRACEBACK = "Traceback (most recent call last):\n" + '  File "/app/places/models.py", line 12, in clean\n' * 40


def fill(alias: str, failures: int, shards: int, migrations: int) -> None:
    """Make a failed run with that many failures and shards, and other migrations that are applied."""
    for table in (MigrationFailure, MigrationShard, MigrationEvent, MigrationAttempt, MigrationRecord, City):
        table.objects.using(alias).all().delete()
    for number in range(migrations):
        _add_run(alias, f"gone:{number:04d}_lost", 8, states.APPLIED)
    attempt = _add_run(alias, KEY, shards, states.FAILED)
    for begin in range(0, failures, 5_000):
        MigrationFailure.objects.using(alias).bulk_create(
            MigrationFailure(
                id=uuid.uuid4().hex,
                attempt_uuid=attempt.uuid,
                key=KEY,
                shard_id=MigrationShard.make_id(attempt.uuid, MigrationShard.RANGE, 1, number % shards),
                object_key=str(number),
                object_repr=f"City {number}",
                error_class="builtins.ValueError",
                message="under water",
                traceback=TRACEBACK,
                is_passed=True,
            )
            for number in range(begin, min(begin + 5_000, failures))
        )


def _add_run(alias: str, key: str, shards: int, status: str) -> MigrationAttempt:
    app_label, _, name = key.partition(":")
    attempt = MigrationAttempt(key=key, total=shards, processed=shards, finished_at=timezone.now())
    attempt.save(using=alias)
    MigrationRecord.objects.using(alias).create(
        key=key,
        app_label=app_label,
        name=name,
        status=status,
        attempt_uuid=attempt.uuid,
        reason=states.FAILURES_OPEN if status == states.FAILED else "",
    )
    MigrationEvent.objects.using(alias).create(key=key, attempt_uuid=attempt.uuid, action="start")
    kinds = [(MigrationShard.PLAN, 0), *((MigrationShard.RANGE, number) for number in range(shards))]
    MigrationShard.objects.using(alias).bulk_create(
        MigrationShard(
            id=MigrationShard.make_id(attempt.uuid, kind, 1, number),
            attempt_uuid=attempt.uuid,
            key=key,
            kind=kind,
            number=number,
            status=MigrationShard.DONE,
        )
        for kind, number in kinds
    )
    return attempt


def _get(path: str) -> Callable[[str], Any]:
    client = Client(raise_request_exception=True)

    def look(alias: str) -> None:
        if not client.cookies:
            boss, _ = User.objects.get_or_create(username="boss", is_staff=True, is_superuser=True)
            client.force_login(boss)
        assert client.get(path.format(alias=alias)).status_code == 200

    return look


def _call(*words: str) -> Callable[[str], Any]:
    def look(alias: str) -> None:
        with redirect_stdout(io.StringIO()):
            call_command(*words, f"--database={alias}")

    return look


def _run_task(alias: str) -> None:
    """Deliver a task as a queue does: it claims a shard whose range is empty, and looks for what is next."""
    record = api.get_record(KEY, alias)
    assert record is not None
    assert record.attempt_uuid is not None
    MigrationRecord.objects.using(alias).filter(pk=KEY).update(status=states.RUNNING)
    shards = MigrationShard.objects.using(alias).filter(attempt_uuid=record.attempt_uuid, kind=MigrationShard.RANGE)
    shards.filter(number__lte=1).update(status=MigrationShard.READY, lower="1", upper="2")
    shard = shards.get(number=0)
    tasks.run_shard(shard.pk, alias)
    MigrationRecord.objects.using(alias).filter(pk=KEY).update(status=states.FAILED)


def _accept(alias: str) -> None:
    api.accept_failures(KEY, alias, reason="closed", actor="benchmark", enqueue=False)
    MigrationFailure.objects.using(alias).update(status=MigrationFailure.OPEN)
    MigrationRecord.objects.using(alias).filter(pk=KEY).update(status=states.FAILED, reason=states.FAILURES_OPEN)


def _retry(alias: str) -> None:
    executor.retry(api.get_migration(KEY), alias, ground.AUTHOR, enqueue=False)
    MigrationFailure.objects.using(alias).update(status=MigrationFailure.OPEN)
    MigrationRecord.objects.using(alias).filter(pk=KEY).update(status=states.FAILED, reason=states.FAILURES_OPEN)
    MigrationShard.objects.using(alias).filter(pk__contains="-retry-").delete()


LOOKS: dict[str, Callable[[str], Any]] = {
    "page with all migrations": _get(f"{PAGE}rows/"),
    "page of one migration": _get(f"{PAGE}{{alias}}/{APP}/{NAME}/rows/"),
    "page of its failures": _get(f"{PAGE}{{alias}}/{APP}/{NAME}/failures/"),
    "question before an accept": _get(f"{PAGE}{{alias}}/{APP}/{NAME}/accept/"),
    "`showmassmigrations`": _call("showmassmigrations"),
    "`showmassmigrations --format=json`": _call("showmassmigrations", "--format=json"),
    "`massmigration failures`": _call("massmigration", "failures", APP, NAME),
    "`massmigration failures --limit=100000`": _call("massmigration", "failures", APP, NAME, "--limit=100000"),
    "`massmigration events`": _call("massmigration", "events"),
    "a task, delivered by a queue": _run_task,
    "accept of all": _accept,
    "retry of all": _retry,
}


def measure(look: Callable[[str], Any], alias: str) -> dict[str, float]:
    """Return statements, seconds and megabytes of a look, after a first one that fills caches."""
    look(alias)
    statements = 0

    def note(sql: str, execute: Any) -> Any:
        nonlocal statements
        statements += 1
        return execute()

    began_at = time.perf_counter()
    with ground.watch_queries(alias, note):
        look(alias)
    seconds = time.perf_counter() - began_at
    return {"statements": statements, "seconds": seconds, "megabytes": read_peak()}


def read_peak() -> float:
    """Return the peak memory of this process in megabytes; Linux's ``ru_maxrss`` begins with that of the parent."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Fill, look, and print a table for each database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--look", help=argparse.SUPPRESS)
    parser.add_argument("--alias", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.look:
        with override_settings(
            MASSMIGRATION_BACKEND="tests.jobs.backends.SilentBackend",
            ROOT_URLCONF="tests.urls",
            ALLOWED_HOSTS=["*"],
        ):
            print(json.dumps(measure(LOOKS[options.look], options.alias)))
        return
    for alias in ground.prepare():
        found: dict[str, dict[str, Any]] = {name: {} for name in LOOKS}
        for size, numbers in SIZES.items():
            fill(alias, *numbers)
            for name in LOOKS:
                found[name][size] = _measure_apart(name, alias)
        _print(alias, found)


def _measure_apart(name: str, alias: str) -> Any:
    """Measure a look in a process of its own, because the peak of a process's memory never falls."""
    command = [sys.executable, "-m", "benchmarks.large", "--look", name, "--alias", alias]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _print(alias: str, found: dict[str, dict[str, Any]]) -> None:
    print(f"\n{ground.get_name(alias)}: little and much")
    print("| look | statements | seconds | peak memory |")
    print("|---|---|---|---|")
    for name, sizes in found.items():
        few, many = sizes["little"], sizes["much"]
        print(
            f"| {name} | {few['statements']} / {many['statements']} | {few['seconds']:.2f} / {many['seconds']:.2f} "
            f"| {few['megabytes']:.0f} / {many['megabytes']:.0f} MB |"
        )


if __name__ == "__main__":
    main()
