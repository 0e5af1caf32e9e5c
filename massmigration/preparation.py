"""What a person should know before a start: rows, backend, and what has to be applied before."""

from __future__ import annotations

from dataclasses import dataclass

from massmigration.backends.base import get_backend_path
from massmigration.databases.counting import COUNT_SECONDS, Count
from massmigration.databases.redaction import describe, get_message
from massmigration.definitions.base import BaseMigration
from massmigration.engine.kinds import get_kind
from massmigration.exceptions import DependencyNotApplied, MassMigrationError
from massmigration.executor.readiness import check_dependencies
from massmigration.overview import Key, get_definition


@dataclass(frozen=True)
class Preparation:
    """What the confirmation page says about a run.

    Attributes:
        migration: The definition.
        backend: Dotted path of the backend, and the queue if there is one.
        rows: How many rows there are, None if that is not known before the start.
        rows_are_estimated: Whether that number is an estimate.
        rows_error: Why the rows could not be counted.
        missing: Mass migrations and Django migrations that have to be applied before.
    """

    migration: BaseMigration
    backend: str
    rows: int | None = None
    rows_are_estimated: bool = False
    rows_error: str = ""
    missing: tuple[str, ...] = ()


def count_objects(migration: BaseMigration, db_alias: str, *, seconds: float = COUNT_SECONDS) -> Count | None:
    """Return how many rows a migration would visit; None if it does not go through rows.

    Args:
        migration: The definition.
        db_alias: The database.
        seconds: A count that takes longer is replaced by an estimate.

    Raises:
        Exception: Whatever the author's ``get_queryset`` raises, or InvalidDefinition.
    """
    return get_kind(migration).count_objects(db_alias, seconds)


def get_preparation(key: Key, db_alias: str) -> Preparation:
    """Return what is to be known before a migration is started; takes about a second at most.

    Args:
        key: The migration.
        db_alias: The database.

    Raises:
        LoadError: There is no definition that works.
    """
    migration = get_definition(key, db_alias)
    missing: tuple[str, ...] = ()
    try:
        check_dependencies(migration, db_alias)
    except DependencyNotApplied as error:
        missing = tuple(error.missing)
    count, rows_error = None, ""
    if not missing:
        try:
            count = count_objects(migration, db_alias)
        except Exception as error:  # the queryset is the author's and may raise anything
            is_ours = isinstance(error, MassMigrationError)
            rows_error = get_message(error) if is_ours else describe(error)
    return Preparation(
        migration,
        get_backend_path(migration),
        count.number if count is not None else None,
        count is not None and count.is_estimate,
        rows_error,
        missing,
    )
