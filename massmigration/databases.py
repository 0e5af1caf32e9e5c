"""Which databases a migration may run on."""

from __future__ import annotations

from django.db import connections, router

from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import DatabaseNotAllowed


def get_aliases() -> list[str]:
    """Return the aliases that may have records: all but replicas, whose rows are those of another alias.

    ``TEST.MIRROR`` marks a replica, as for Django's own test runner, or the routers admit no tables of ours to it.
    """
    return [alias for alias in connections if _is_migrated(alias, "massmigration")]


def _is_migrated(db_alias: str, app_label: str) -> bool:
    is_mirror = bool(connections[db_alias].settings_dict.get("TEST", {}).get("MIRROR"))
    return not is_mirror and bool(router.allow_migrate(db_alias, app_label))


def get_database_aliases(migration: BaseMigration) -> list[str]:
    """Return the aliases that a migration may run on.

    Those that the author allows; without such a list all that the routers admit for the app, replicas left out
    (``TEST.MIRROR`` marks them, as for Django's own test runner).

    Args:
        migration: The definition.
    """
    if migration.allowed_db_aliases is not None:
        return [alias for alias in connections if alias in migration.allowed_db_aliases]
    return [alias for alias in connections if _is_migrated(alias, migration.app_label)]


def check_alias(db_alias: str) -> None:
    """Raise DatabaseNotAllowed if DATABASES has no such alias."""
    if db_alias not in connections:
        known = ", ".join(connections)
        raise DatabaseNotAllowed(
            f"There is no database '{db_alias}' in DATABASES. Choose among: {known}.", db_alias=db_alias
        )


def check_database(migration: BaseMigration, db_alias: str) -> None:
    """Raise DatabaseNotAllowed if the migration does not run on this database."""
    check_alias(db_alias)
    allowed = get_database_aliases(migration)
    if db_alias not in allowed:
        raise DatabaseNotAllowed(
            f"{migration.key} does not run on database '{db_alias}'. It runs on: {', '.join(allowed) or 'none'}.",
            key=migration.key,
            db_alias=db_alias,
        )
