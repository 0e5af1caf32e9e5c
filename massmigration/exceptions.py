"""Every error that massmigration raises on purpose, in one tree.

::

    MassMigrationError
    ├── ConfigurationError        a setting or a class attribute has a value that cannot work
    │   └── BackendNotInstalled   the library of a backend is missing
    ├── LoadError                 a migration file, or a reference to one
    │   ├── MigrationNotFound
    │   ├── AmbiguousName
    │   ├── BrokenMigration
    │   ├── UnknownDependency
    │   └── CircularDependency
    ├── InvalidDefinition         a queryset, key or definition that cannot be worked
    ├── IllegalMove               the status does not allow the action
    ├── AcceptRefused             failures cannot be accepted as they were named, or without a reason
    ├── DependencyNotApplied      something that this migration needs is not applied yet
    ├── DatabaseNotAllowed        the migration does not run on this database
    ├── BackendUnreachable        the queue could not be told about the work
    ├── DatabaseLocked            another writer kept SQLite's only write lock for too long
    ├── WaitTimedOut              waiting ended before the migration did
    ├── VersionReplaced           the run is worked with another version of the file than this process has
    ├── FenceLost                 another worker or a person took the shard
    ├── WorkersLost               several workers were lost at the same object or step
    └── RetryLater                raised by authors: continue with this shard later
"""

from __future__ import annotations

from decimal import Decimal
from numbers import Real
from typing import Final

LONGEST_REST_SECONDS: Final = 30 * 24 * 3600
"""Thirty days, which is as far ahead as Cloud Tasks schedules a task."""


class MassMigrationError(Exception):
    """Base of all errors of this package.

    Args:
        message: One sentence: subject, fact, what to do next.
        key: The migration concerned, ``"app_label:NNNN_name"``, if there is one.
        db_alias: The database concerned, if there is one.
    """

    def __init__(self, message: str, *, key: str | None = None, db_alias: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.db_alias = db_alias


class ConfigurationError(MassMigrationError):
    """A setting or a class attribute has a value that cannot work."""


class BackendNotInstalled(ConfigurationError):
    """The library of a backend is missing; the message holds the pip command."""


class LoadError(MassMigrationError):
    """Base of the errors about migration files and references to them."""


class MigrationNotFound(LoadError):
    """A name, key or prefix stands for no migration: it has neither a file nor a record."""


class AmbiguousName(LoadError):
    """More than one name begins with this prefix."""


class BrokenMigration(LoadError):
    """The file does not import or holds no usable class ``Migration``.

    Args:
        message: One sentence.
        key: The migration's key.
        path: The file's path.
    """

    def __init__(self, message: str, *, key: str | None = None, path: str | None = None) -> None:
        super().__init__(message, key=key)
        self.path = path


class UnknownDependency(LoadError):
    """A file depends on a migration that does not exist."""


class CircularDependency(LoadError):
    """Some migrations depend on each other in a circle."""


class InvalidDefinition(MassMigrationError):
    """A queryset, key or definition that the engine cannot work; the sentence says why."""


class IllegalMove(MassMigrationError):
    """The record's status does not allow the action.

    Args:
        message: One sentence.
        key: The migration's key.
        db_alias: The database.
        status: The status in which the record was found.
        action: What was asked for, such as ``"pause"``.
    """

    def __init__(self, message: str, *, key: str, db_alias: str, status: str, action: str) -> None:
        super().__init__(message, key=key, db_alias=db_alias)
        self.status = status
        self.action = action


class AcceptRefused(MassMigrationError):
    """Failures cannot be accepted as they were named, or without a reason; nothing was changed."""


class DependencyNotApplied(MassMigrationError):
    """A migration that this one depends on is not applied.

    Args:
        message: One sentence.
        key: The migration's key.
        db_alias: The database.
        missing: Keys of mass migrations, or names of Django migrations, that are not applied.
    """

    def __init__(self, message: str, *, key: str, db_alias: str, missing: list[str]) -> None:
        super().__init__(message, key=key, db_alias=db_alias)
        self.missing = missing


class DatabaseNotAllowed(MassMigrationError):
    """The migration does not run on this database, or there is no such alias."""


class BackendUnreachable(MassMigrationError):
    """The backend could not take the work; the record stays and can be recovered."""


class DatabaseLocked(MassMigrationError):
    """Another writer kept SQLite's only write lock for too long; nothing was changed."""


class WaitTimedOut(MassMigrationError):
    """Waiting ended before the migration did; the migration itself continues."""


class VersionReplaced(MassMigrationError):
    """The run is worked with another version of the migration's file than this process has imported."""


class FenceLost(MassMigrationError):
    """This worker no longer holds the shard, so what it did was rolled back."""


class WorkersLost(MassMigrationError):
    """Several workers were lost at the same object or step; it is not tried again before a retry."""


class RetryLater(MassMigrationError):
    """Raise it in an operation to continue with the shard later; it is not counted as a failure.

    Args:
        seconds: When to continue, from 0 to ``LONGEST_REST_SECONDS``.
        reason: What is waited for, in a few words; shown as ``waiting_for``.

    Raises:
        TypeError: ``seconds`` is no number.
        ValueError: ``seconds`` is not finite, negative or too large.
    """

    seconds: float = 0.0
    reason: str = ""

    def __init__(self, seconds: float, reason: str = "") -> None:
        self.seconds = check_rest(seconds)
        super().__init__(reason or f"asked to come back in {self.seconds:g} seconds")
        self.reason = reason


def check_rest(seconds: object) -> float:
    """Return in how many seconds to continue with a shard; raises what ``RetryLater`` raises."""
    sentence = f"RetryLater takes a number of seconds from 0 to {LONGEST_REST_SECONDS} (30 days), not {seconds!r:.60}."
    if isinstance(seconds, bool) or not isinstance(seconds, (Real, Decimal)):
        raise TypeError(sentence)
    try:
        number = float(seconds)
    except OverflowError:
        raise ValueError(sentence) from None
    if not 0 <= number <= LONGEST_REST_SECONDS:  # NaN is neither
        raise ValueError(sentence)
    return number
