"""The body of a task that a queue delivers over HTTP: written and signed here, read and checked here."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.core import signing
from django.core.signing import BadSignature

from massmigration.backends.base import RUN_SHARD, WATCH

SALT: Final = "massmigration.backends.payloads"
CONTENT_TYPE: Final = "application/x-massmigration-task"
"""A custom type: no form of a foreign page can send it, and no middleware parses it."""

MAX_BYTES: Final = 10_000
"""Far more than a task of ours has; Cloud Tasks would carry 1 MB."""

MAX_AGE_SECONDS: Final = 31 * 24 * 60 * 60
"""Cloud Tasks deletes a task 31 days after it was added (https://cloud.google.com/tasks/docs/quotas)."""

ARGUMENTS: Final[Mapping[str, frozenset[str]]] = {
    RUN_SHARD: frozenset({"shard_id", "db_alias"}),
    WATCH: frozenset({"key", "db_alias", "attempt"}),
}
"""The arguments of each function that may be called; all of them are texts."""

OPTIONAL: Final[Mapping[str, frozenset[str]]] = {RUN_SHARD: frozenset(), WATCH: frozenset({"due_at"})}
"""Those that may be left out."""


class Task(NamedTuple):
    """What a body asks for: the dotted path of a function, and its keyword arguments."""

    name: str
    arguments: dict[str, str]


class UnknownTask(Exception):
    """The signature is ours, but the task or its arguments do not exist: another release wrote it."""


def dump(task: str, arguments: Mapping[str, Any]) -> bytes:
    """Return the body for a task: JSON, signed with the site's ``SECRET_KEY``."""
    return signing.dumps({"task": task, "arguments": dict(arguments)}, salt=SALT).encode("ascii")


def load(body: bytes) -> Task:
    """Return what a body asks for, if its signature is ours; nothing else in it is read before that.

    Raises:
        BadSignature: We did not sign it, it is incomplete, or it is older than ``MAX_AGE_SECONDS``.
        UnknownTask: It is ours, but there is no such task, or not with these arguments.
    """
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise BadSignature("The body is not a text of ours.") from None
    try:
        value = signing.loads(text, salt=SALT, max_age=MAX_AGE_SECONDS)
    except ValueError:
        raise UnknownTask("The body is not JSON.") from None
    if not (isinstance(value, dict) and set(value) == {"task", "arguments"}):
        raise UnknownTask("The body has to hold a task and its arguments, and nothing else.")
    return _check(value["task"], value["arguments"])


def _check(name: object, arguments: object) -> Task:
    wanted = ARGUMENTS.get(name) if isinstance(name, str) else None
    if wanted is None:
        raise UnknownTask(f"{name!r} is not a task of massmigration.")
    is_plain = isinstance(arguments, dict) and all(isinstance(value, str) for value in arguments.values())
    if not (is_plain and isinstance(arguments, dict) and wanted <= set(arguments) <= wanted | OPTIONAL[str(name)]):
        raise UnknownTask(f"{name} takes {', '.join(sorted(wanted))}, each as a text, and nothing else.")
    if "attempt" in arguments and not _is_read_by(uuid.UUID, arguments["attempt"]):
        raise UnknownTask(f"{arguments['attempt']!r} is not the UUID of an attempt.")
    if "due_at" in arguments and not _is_read_by(datetime.fromisoformat, arguments["due_at"]):
        raise UnknownTask(f"{arguments['due_at']!r} is not a time.")
    return Task(str(name), arguments)


def _is_read_by(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True
