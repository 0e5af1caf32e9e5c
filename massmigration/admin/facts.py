"""What a person should know before an action: rows, backend, dependencies, and whether our tables are there."""

from __future__ import annotations

from dataclasses import dataclass

from massmigration import api
from massmigration.backends.base import get_backend_path
from massmigration.definitions.base import BaseMigration, QuerysetMigration
from massmigration.engine.counting import count_rows
from massmigration.engine.rows import get_table
from massmigration.exceptions import DependencyNotApplied, MassMigrationError
from massmigration.readiness import check_dependencies
from massmigration.recorder import has_tables

__all__ = ["Preparation", "get_preparation", "has_tables"]


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


def get_preparation(key: str, db_alias: str) -> Preparation:
    """Return what is to be known before a migration is started; takes about a second at most.

    Args:
        key: The migration's key.
        db_alias: The database.

    Raises:
        LoadError: There is no definition that works.
    """
    migration = api.get_migration(key)
    missing: tuple[str, ...] = ()
    try:
        check_dependencies(migration, db_alias)
    except DependencyNotApplied as error:
        missing = tuple(error.missing)
    rows, is_estimate, rows_error = None, False, ""
    if isinstance(migration, QuerysetMigration) and not missing:
        try:
            rows, is_estimate = count_rows(get_table(migration, db_alias).queryset)
        except Exception as error:  # the queryset is the author's and may raise anything
            is_ours = isinstance(error, MassMigrationError)
            rows_error = str(error) if is_ours else f"{type(error).__name__}: {error}"
    return Preparation(migration, get_backend_path(migration), rows, is_estimate, rows_error, missing)
