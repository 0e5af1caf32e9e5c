"""Finds the object of a database: ``get_database(alias)``.

The class of a connection is in the module of this package that has the name of its vendor, as Django calls it, and is
called ``Database``. A database without a module is an ``SqlDatabase``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from django.db import connections

from massmigration.databases.base import BaseDatabase
from massmigration.databases.documents.errors import is_transient_at_google
from massmigration.databases.sql import SqlDatabase

PACKAGES: Final = {"gcloudc": "documents.stores"}
"""The modules for connections that name no vendor, by the package of their class."""

_databases: dict[str, BaseDatabase] = {}


def get_database(alias: str) -> BaseDatabase:
    """Return the one object of the database that has this alias in ``DATABASES``."""
    found = _databases.get(alias)
    if found is None:  # two threads may both make one, and one of them stays
        found = _databases.setdefault(alias, _find_class(connections[alias])(alias))
    return found


def _find_class(connection: Any) -> type[BaseDatabase]:
    packages = (base.__module__.partition(".")[0] for base in type(connection).__mro__)
    name = next((PACKAGES[package] for package in packages if package in PACKAGES), connection.vendor)
    path = f"massmigration.databases.{name}"
    try:
        module = import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        return SqlDatabase
    found: type[BaseDatabase] = module.Database
    return found


def is_transient(error: BaseException) -> bool:
    """Return whether an error says that the same work may succeed a moment later, whichever database raised it.

    Google's errors count, too: queues and other services raise them as Datastore and Firestore do.
    """
    return is_transient_at_google(error) or any(get_database(alias).is_transient(error) for alias in connections)
