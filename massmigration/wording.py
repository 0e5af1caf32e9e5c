"""How the commands say where a migration stands: counts, times, rates and the commands to type next."""

from __future__ import annotations

import datetime
import json
import math
import sys
from pathlib import Path
from typing import Any, Final

from django.db import DEFAULT_DB_ALIAS
from django.utils import timezone

from massmigration import states
from massmigration.api import Progress
from massmigration.databases.redaction import flatten
from massmigration.definitions.base import BaseMigration
from massmigration.engine.kinds import get_kind
from massmigration.models import MigrationFailure

LINE_LIMIT: Final = 200
"""Characters of an error that are shown on one line."""

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def get_unit(migration: BaseMigration | None) -> str:
    """Return what a migration counts: ``rows``, ``items``, or nothing if it is one single step."""
    return "rows" if migration is None else get_kind(migration).unit


def format_count(number: int, *, is_estimate: bool = False) -> str:
    """Return a number with separators, and with ``~`` in front if it is only an estimate."""
    return f"{'~' if is_estimate else ''}{number:,}"


def inflect(unit: str, number: int) -> str:
    """Return ``row`` for one of ``rows``."""
    return unit.removesuffix("s") if number == 1 else unit


def format_seconds(seconds: float) -> str:
    """Return a duration with its two largest units, such as ``2 h 5 min``; short ones with a decimal."""
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    rest = round(seconds)
    parts: list[tuple[int, str]] = []
    for size, unit in _UNITS:
        if rest >= size or parts:
            parts.append((rest // size, unit))
            rest %= size
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number)


def format_moment(moment: datetime.datetime) -> str:
    """Return date and time in the site's time zone; the time alone if it is today."""
    now = timezone.now()
    if timezone.is_aware(moment):
        moment, now = timezone.localtime(moment), timezone.localtime(now)
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def name_target(key: str, db_alias: str) -> str:
    """Return the key, with the database in brackets if it is not the default one."""
    return key if db_alias == DEFAULT_DB_ALIAS else f"{key} ({db_alias})"


def format_json(rows: list[dict[str, Any]]) -> str:
    """Return rows as a JSON list for people and programs: in letters, but nothing in it steers a terminal."""
    text = json.dumps(rows, indent=2, ensure_ascii=False)
    return "".join(char if char == "\n" or flatten(char) == char else _escape(char) for char in text)


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else json.dumps(char)[1:-1]


def describe_failure(failure: MigrationFailure) -> str:
    """Return class and message of a failure in one line that is not too long."""
    name = failure.error_class.removeprefix("builtins.")
    text = flatten(" ".join(f"{name}: {failure.message}".split()))
    return text if len(text) <= LINE_LIMIT else f"{text[:LINE_LIMIT]} … (cut)"


def make_command(command: str, key: str = "", db_alias: str = DEFAULT_DB_ALIAS) -> str:
    """Return a command line that can be typed, such as ``python manage.py massmigration resume places 0002_slugs``.

    Args:
        command: Name and verb.
        key: The migration, if the command is about one.
        db_alias: The database.
    """
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    start = {"__main__.py": "python -m django", "django-admin": "django-admin"}.get(program, "python manage.py")
    database = [] if db_alias == DEFAULT_DB_ALIAS else [f"--database={db_alias}"]
    return " ".join([start, command, *key.split(":")] if key else [start, command]) + "".join(
        f" {option}" for option in database
    )


def describe_rows(progress: Progress, unit: str) -> str:
    """Return ``58,000 of 234,908 rows (24 %)``, as far as it is known."""
    if not unit or progress.processed is None:
        return ""
    if progress.total is None:
        return f"{progress.processed:,} {inflect(unit, progress.processed)}" if progress.processed else ""
    total = format_count(progress.total, is_estimate=bool(progress.total_is_estimate))
    percent = "" if progress.percent is None else f" ({math.floor(progress.percent)} %)"
    return f"{progress.processed:,} of {total} {inflect(unit, progress.total)}{percent}"


def describe_pace(progress: Progress, unit: str, rate: float | None = None) -> str:
    """Return ``41,200 rows/s, 4 s left, 1 of 8 key ranges, 3 workers``, as far as it is known.

    Args:
        progress: Where the migration stands.
        unit: What it counts.
        rate: The rate that was measured; None: what the workers say.
    """
    parts = []
    rate = rate or progress.rate
    if rate and unit:
        parts.append(f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s")
        if progress.total is not None and progress.processed is not None:
            left = max(0, progress.total - progress.processed) / rate
            parts.append(f"{format_seconds(math.ceil(left))} left")
    if unit and progress.shards is not None:
        ranges = "key range" if unit == "rows" else "shard"
        parts.append(f"{progress.shards_done or 0} of {progress.shards} {ranges}{'s' if progress.shards != 1 else ''}")
    if progress.workers_alive and progress.workers_alive > 1:
        parts.append(f"{progress.workers_alive} workers")
    return ", ".join(parts)


def describe_trouble(progress: Progress) -> str:
    """Return why nothing moves, or an empty string if all is well."""
    if progress.stalled:
        since = f" since {format_moment(progress.stalled_since)}" if progress.stalled_since else ""
        return f"stalled{since}: nobody works on it"
    if progress.waiting_for and progress.status in states.ACTIVE:
        return f"waiting: {flatten(progress.waiting_for)}"
    return ""


def describe_run(progress: Progress, unit: str, rate: float | None = None) -> str:
    """Return one line about a migration at work, without its name."""
    parts = [describe_trouble(progress), describe_rows(progress, unit)]
    if progress.status == states.ENQUEUED and not parts[0]:
        parts = ["starting"]
    if not progress.stalled:
        parts.append(describe_pace(progress, unit, rate))
    return ", ".join(part for part in parts if part) or states.LABELS[progress.status]
