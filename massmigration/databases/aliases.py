"""Which databases a migration may run on."""

from __future__ import annotations

from collections.abc import Collection

from django.db import connections, router

from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import ConfigurationError, DatabaseNotAllowed


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

    Those that the author allows; without such a list all that the routers admit for the app, replicas left out.
    A migration whose list is none cannot be started; it is shown as if it had no list.
    """
    if migration.allowed_db_aliases is not None and _is_list(migration.allowed_db_aliases):
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
    """Raise DatabaseNotAllowed if the migration does not run on this database.

    Raises:
        ConfigurationError: ``allowed_db_aliases`` is no list. Of a string every part would be an alias.
    """
    check_alias(db_alias)
    if migration.allowed_db_aliases is not None and not _is_list(migration.allowed_db_aliases):
        raise ConfigurationError(
            f"allowed_db_aliases of {migration.key} is {migration.allowed_db_aliases!r}, but it has to be a list of "
            "aliases, or None. Correct it.",
            key=migration.key,
        )
    allowed = get_database_aliases(migration)
    if db_alias not in allowed:
        raise DatabaseNotAllowed(
            f"{migration.key} does not run on database '{db_alias}'. It runs on: {', '.join(allowed) or 'none'}.",
            key=migration.key,
            db_alias=db_alias,
        )


def _is_list(value: object) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes)
