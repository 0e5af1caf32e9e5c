"""What the commands say when a run ends, is handed over, or is interrupted."""

from __future__ import annotations

from typing import Any, Final

from massmigration import api, states, wording
from massmigration.api import Progress
from massmigration.databases.redaction import flatten
from massmigration.discovery.loader import get_loader

FAILURE_LIMIT: Final = 3
"""So many failed objects are shown; all of them are kept."""


def describe_end(progress: Progress, style: Any, seconds: float | None = None) -> list[str]:
    """Return the lines about a migration that is at work no more.

    Args:
        progress: Where it stands.
        style: Django's colours.
        seconds: How long this process took part.
    """
    name = wording.name_target(progress.key, progress.database)
    if progress.status == states.APPLIED:
        lines = [f"{name}  {style.SUCCESS('applied')}{_describe_result(progress, seconds)}"]
        if progress.warning:
            lines.append(style.WARNING(f"  Warning: {flatten(progress.warning)}"))
        return lines
    if progress.status == states.FAILED:
        return _describe_failure(progress, style)
    rows = wording.describe_rows(progress, _get_unit(progress))
    line = f"{name}  {style.WARNING(states.LABELS[progress.status])}{f' after {rows}' if rows else ''}"
    ways = {
        states.PAUSED: ("To resume it", "massmigration resume"),
        states.CANCELLED: ("To start it again", "massmigrate"),
        states.ROLLED_BACK: ("To start it again", "massmigrate"),
        states.NOT_RUN: ("To run it", "massmigrate"),
    }
    if progress.status not in ways:
        return [line]
    why, command = ways[progress.status]
    return [line, f"  {why}: {wording.make_command(command, progress.key, progress.database)}"]


def describe_launch(progress: Progress, style: Any) -> list[str]:
    """Return the lines about a migration that was handed to other processes."""
    name = wording.name_target(progress.key, progress.database)
    lines = [f"{name}  {style.SUCCESS(states.LABELS[progress.status])} in the background"]
    if progress.warning:
        lines.append(style.WARNING(f"  Warning: {flatten(progress.warning)}"))
    if progress.log_path:
        lines.append(f"  Log: {progress.log_path}")
    return [*lines, f"  To watch it: {wording.make_command('massmigration watch', progress.key, progress.database)}"]


def describe_interrupt(progress: Progress, style: Any) -> list[str]:
    """Return the lines after a Ctrl-C: what became of the migration, and how to continue."""
    if progress.status not in states.ACTIVE:
        return describe_end(progress, style)
    name = wording.name_target(progress.key, progress.database)
    watch = wording.make_command("massmigration watch", progress.key, progress.database)
    pause = wording.make_command("massmigration pause", progress.key, progress.database)
    if progress.workers_alive:
        line = f"{name}  continues, because other workers are at it; only watching has ended"
    else:
        line = f"{name}  stays {states.LABELS[progress.status]}; only watching has ended"
    return [
        line,
        f"  To watch it: {watch}",
        f"  To pause it: {pause}",
    ]


def describe_termination(progress: Progress, style: Any) -> list[str]:
    """Return the line after a SIGTERM or SIGHUP: the shards are handed back, and how to continue."""
    if progress.status not in states.ACTIVE:
        return describe_end(progress, style)
    command = wording.make_command("massmigrate", progress.key, progress.database)
    return [
        f"{wording.name_target(progress.key, progress.database)}  stays {states.LABELS[progress.status]}; to continue "
        f"where it stopped: {command}"
    ]


def _describe_result(progress: Progress, seconds: float | None) -> str:
    if progress.faked:
        return " without running it"
    unit, parts = _get_unit(progress), []
    if unit and progress.processed is not None:
        parts.append(f"{progress.processed:,} {wording.inflect(unit, progress.processed)}")
        if progress.changed is not None:
            parts.append(f"{progress.changed:,} changed")
    if progress.started_at and progress.finished_at:  # the rate is that of the whole attempt, so is the time
        seconds = (progress.finished_at - progress.started_at).total_seconds()
    if seconds is not None:
        parts.append(wording.format_seconds(seconds))
    if unit and progress.rate and seconds and seconds >= 1:
        parts.append(f"{progress.rate:,.0f} {unit}/s")
    return f": {', '.join(parts)}" if parts else ""


def _describe_failure(progress: Progress, style: Any) -> list[str]:
    rows = wording.describe_rows(progress, _get_unit(progress))
    name = wording.name_target(progress.key, progress.database)
    after = f" after {rows}" if rows else ""
    lines = [f"{name}  {style.ERROR('failed')}{after}: {flatten(progress.error or _describe_reason(progress))}"]
    failures = api.get_acceptable_failures(progress.key, progress.database, limit=FAILURE_LIMIT)
    count = progress.acceptable if len(failures) == FAILURE_LIMIT else len(failures)
    if len(failures) == 1 and " ".join(failures[0].message.split()) in (progress.error or ""):
        failures = []  # the line above says it all
    for failure in failures:
        name = flatten(f"{failure.object_key} ({failure.object_repr})")
        lines.append(f"  Object {name}: {wording.describe_failure(failure)}")
    if failures and count > len(failures):
        lines.append(f"  and {count - len(failures):,} more")
    retry = wording.make_command("massmigration retry", progress.key, progress.database)
    lines.append(f"  Fix the problem, then: {retry}")
    if progress.acceptable:
        accept = wording.make_command("massmigration accept", progress.key, progress.database)
        lines.append(f"  Or accept the failed objects as they are: {accept} --reason=TEXT")
    return lines


def _describe_reason(progress: Progress) -> str:
    return states.REASONS.get(progress.reason or "", "no reason was kept")


def _get_unit(progress: Progress) -> str:
    return wording.get_unit(get_loader().migrations.get(progress.key))
