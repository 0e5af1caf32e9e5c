"""What the commands say when a run ends, is handed over, or is interrupted."""

from __future__ import annotations

from typing import Any, Final

from massmigration import api, states, wording
from massmigration.api import Progress
from massmigration.databases.redaction import flatten
from massmigration.models import MigrationFailure
from massmigration.states import Action

FAILURE_LIMIT: Final = 3
"""How many failed objects are shown; all of them are kept."""

LINE_LIMIT: Final = 200
"""Characters of an error that are shown on one line."""


def describe_end(progress: Progress, style: Any, seconds: float | None = None) -> list[str]:
    """Return the lines about a migration that is not running any more; this process took part for ``seconds``."""
    name = wording.name_target(progress.key, progress.database)
    if progress.status == states.APPLIED:
        lines = [f"{name}  {style.SUCCESS(states.LABELS[states.APPLIED])}{_describe_result(progress, seconds)}"]
        if progress.warning:
            lines.append(style.WARNING(f"  Warning: {flatten(progress.warning)}"))
        return lines
    if progress.status == states.FAILED:
        return _describe_failure(progress, style)
    return describe_stop(progress, style, _describe_after(progress))


def describe_stop(progress: Progress, style: Any, detail: str) -> list[str]:
    """Return the lines about a migration that is left as it is: its status, and how to continue."""
    name = wording.name_target(progress.key, progress.database)
    way_on = wording.describe_way_on(progress.status, progress.key, progress.database)
    line = f"{name}  {style.WARNING(states.LABELS[progress.status])}{detail}"
    return [line, f"  {way_on}"] if way_on else [line]


def describe_done(action: Action, key: str, db_alias: str) -> list[str]:
    """Return the lines about an action that is over at once."""
    target = action.target or states.NOT_RUN
    label = wording.describe_status(target, faked=target == states.APPLIED)
    line = f"{wording.name_target(key, db_alias)}  {label}; {action.outcome}"
    return [line, f"  {wording.describe_way_on(target, key, db_alias)}"] if target == states.PAUSED else [line]


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
        line = f"{name}  continues, because other workers are working on it; only watching has ended"
    else:
        line = f"{name}  stays {states.LABELS[progress.status]}; only watching has ended"
    return [line, f"  To watch it: {watch}", f"  To pause it: {pause}"]


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
        return f" {wording.WITHOUT_RUNNING}"
    run = wording.Run.of(progress)
    parts = run.numbers
    if progress.started_at and progress.finished_at:  # the rate is that of the whole attempt, so is the time
        seconds = (progress.finished_at - progress.started_at).total_seconds()
    if seconds is not None:
        parts.append(wording.format_seconds(seconds))
    if run.unit and run.rate and seconds and seconds >= 1:
        parts.append(wording.describe_rate(run.rate, run.unit))
    return f": {', '.join(parts)}" if parts else ""


def _describe_failure(progress: Progress, style: Any) -> list[str]:
    name = wording.name_target(progress.key, progress.database)
    why = flatten(progress.error or wording.describe_reason(progress.reason) or "no reason was kept")
    lines = [f"{name}  {style.ERROR(states.LABELS[states.FAILED])}{_describe_after(progress)}: {why}"]
    failures = api.get_acceptable_failures(progress.key, progress.database, limit=FAILURE_LIMIT)
    count = progress.acceptable if len(failures) == FAILURE_LIMIT else len(failures)
    if len(failures) == 1 and " ".join(failures[0].message.split()) in (progress.error or ""):
        failures = []  # the line above says it all
    for failure in failures:
        name = flatten(f"{failure.object_key} ({failure.object_repr})")
        lines.append(f"  Object {name}: {describe_failure(failure)}")
    if failures and count > len(failures):
        lines.append(f"  and {count - len(failures):,} more")
    retry = wording.make_command("massmigration retry", progress.key, progress.database)
    lines.append(f"  Fix the problem, then: {retry}")
    if progress.acceptable:
        accept = wording.make_command("massmigration accept", progress.key, progress.database)
        lines.append(f"  Or skip the failed objects: {accept} --reason=TEXT")
    return lines


def _describe_after(progress: Progress) -> str:
    rows = wording.Run.of(progress).progress
    return f" after {rows}" if rows else ""


def describe_failure(failure: MigrationFailure) -> str:
    """Return class and message of a failure in one line that is not too long."""
    return flatten(wording.describe_error(failure.error_class, " ".join(failure.message.split()), LINE_LIMIT))
