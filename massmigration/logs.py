"""What a log line carries besides its sentence: fields and labels as google-cloud-logging expects them.

That package is not imported here, and other handlers ignore them.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from massmigration import states
from massmigration.databases.redaction import flatten, get_message, make_harmless, make_storable

logger: Final = logging.getLogger("massmigration")

LABELS: Final = {
    "key": "massmigration_key",
    "db_alias": "massmigration_database",
    "attempt": "massmigration_attempt",
}
"""Fields that are labels, too, because Cloud Logging indexes those; the prefix keeps them apart from the site's."""

TEXT_LIMIT: Final = 5_000
TRACEBACK_LIMIT: Final = 50_000
"""Characters. An entry of Cloud Logging holds 256 KiB; a longer one is split into lines without fields."""

FRAMES_LEFT: Final = 20
"""How many of the last frames are logged of a traceback that is too long, such as that of an endless recursion."""


class Cause(NamedTuple):
    """What caused an event: an error, whose traceback is logged, and further fields for the line."""

    error: BaseException | None = None
    fields: Mapping[str, Any] = {}


class Guard(logging.Filter):
    """Makes each record of our logger safe to write, wherever its handlers write it.

    Text from a person, a row or an error cannot begin a new line or control a terminal, and the details that a database
    adds to its errors are left out, in the line and in its traceback. The message's pattern is not changed, because
    error trackers group by it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record in place; every record passes."""
        if isinstance(record.args, tuple):
            record.args = tuple(_make_harmless(value) for value in record.args)
        elif isinstance(record.args, Mapping):
            record.args = {name: _make_harmless(value) for name, value in record.args.items()}
        record.msg = _make_harmless(record.msg)
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if error is not None:
            shown = _fit(make_harmless(error, on_one_line=True))
            record.exc_info = (type(shown), shown, shown.__traceback__)
        return True


def _make_harmless(value: Any) -> Any:
    if isinstance(value, BaseException):
        return flatten(get_message(value))
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return flatten(make_storable(str(value)))


if not any(isinstance(each, Guard) for each in logger.filters):
    logger.addFilter(Guard())


def fields(**values: Any) -> dict[str, Any]:
    """Return what a logging call takes as ``extra``: the values as ``json_fields``, some of them as ``labels`` too.

    None and empty texts are left out; what JSON cannot hold becomes text.
    """
    known = {name: _make_plain(value) for name, value in values.items()}
    known = {name: value for name, value in known.items() if value is not None and value != ""}
    labels = {label: str(known[name]) for name, label in LABELS.items() if name in known}
    return {"json_fields": known, "labels": labels}


def get_class_name(error: BaseException | None) -> str:
    """Return the dotted name of an error's class."""
    return f"{type(error).__module__}.{type(error).__qualname__}" if error is not None else ""


def log_event(
    key: str,
    db_alias: str,
    action: str,
    *,
    detail: str = "",
    origin: str = "",
    actor: str = "",
    cause: Cause | None = None,
    **values: Any,
) -> None:
    """Log one event of the audit trail; that a run failed is logged as an error only here.

    ``action`` is a name in ``states.ACTIONS``, ``detail`` one line that says more, and ``values`` are further fields.
    """
    error, more = cause or Cause()
    detail = _cut(detail)
    by = f" by {actor} ({origin})" if origin != "worker" else ""
    entry = states.ACTIONS[action]
    level = logging.WARNING if action == "finish" and detail else entry.level
    logger.log(
        level,
        "%s %s on database '%s'%s%s",
        key,
        entry.done,
        db_alias,
        by,
        f": {detail}" if detail else "",
        exc_info=error,
        extra=fields(
            **{
                "event": action,
                "key": key,
                "db_alias": db_alias,
                "actor": actor,
                "origin": origin,
                "detail": detail,
                "error_class": get_class_name(error),
                **values,
                **more,
            }
        ),
    )


def _fit(error: BaseException) -> BaseException:
    """Return the error, or, if it is too long for a line of the log, a shorter one of the same name."""
    if sum(map(len, traceback.format_exception(error))) <= TRACEBACK_LIMIT:
        return error
    names = {"__module__": type(error).__module__, "__qualname__": type(error).__qualname__}
    short: BaseException = type(type(error).__name__, (Exception,), names)(_cut(str(error)))
    frames, frame = [], error.__traceback__
    while frame is not None:
        frames.append(frame)
        frame = frame.tb_next
    return short.with_traceback(frames[-FRAMES_LEFT:][0] if frames else None)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]} … (cut)"


def _make_plain(value: Any) -> Any:
    """Return a value that JSON can hold; None for a number that it cannot, such as infinity."""
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _make_plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_make_plain(item) for item in value]
    return _cut(make_storable(str(value)))
