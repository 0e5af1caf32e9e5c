"""Imports one migration file; whatever goes wrong, only this file is broken.

The text that was imported is remembered: a file may be replaced while a process works with the old one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from django.db.migrations import Migration as SchemaMigration

from massmigration.definitions.base import BaseMigration, make_own
from massmigration.definitions.batch import BatchMigration
from massmigration.definitions.custom import CustomMigration
from massmigration.definitions.mapper import MapperMigration
from massmigration.definitions.simple import SimpleMigration
from massmigration.discovery.files import MAX_NAME_LENGTH, MigrationFile, describe_error
from massmigration.discovery.reference import parse
from massmigration.exceptions import BrokenMigration

_WRITTEN_BY_AUTHOR: Final[tuple[tuple[type[BaseMigration], tuple[tuple[str, ...], ...]], ...]] = (
    (SimpleMigration, (("operation",),)),
    (MapperMigration, (("get_queryset",), ("operation",))),
    (BatchMigration, (("get_queryset",), ("operation",))),
    (CustomMigration, (("get_items",), ("operation", "operation_many"))),
    (BaseMigration, (("launch",),)),
)
"""Per kind: the methods that an author has to write; of several in one tuple, one is enough."""


def import_migration(file: MigrationFile) -> BaseMigration:
    """Import a file and return an instance of its class ``Migration``; its dependencies need not exist.

    Raises:
        BrokenMigration: Whatever went wrong, SystemExit included; the cause is chained.
    """
    if not file.is_well_named:
        raise _broken(
            file,
            "has a name that cannot be used. Rename the file to a number, an underscore, then letters, "
            f"digits and underscores, such as 0001_name.py, in at most {MAX_NAME_LENGTH} characters",
        )
    try:
        definition = vars(_import_source(file)).get("Migration")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _broken(file, f"does not import: {describe_error(error, file.path)}. Correct {file.path}") from error
    if fault := _find_fault(definition):
        raise _broken(file, fault)
    try:
        migration: BaseMigration = definition(file.app_label, file.name)
        get_dependencies(migration)
    except KeyboardInterrupt:
        raise
    except BrokenMigration as error:
        raise _broken(file, str(error)) from None
    except BaseException as error:
        raise _broken(file, f"cannot be made: {describe_error(error, file.path)}. Correct {file.path}") from error
    return migration


def make_again(file: MigrationFile, migration: BaseMigration) -> BaseMigration:
    """Return another instance of a migration that was imported.

    Raises:
        BrokenMigration: Its ``__init__`` worked once, but not again; the cause is chained.
    """
    try:
        return make_own(migration)
    except Exception as error:
        raise _broken(file, f"cannot be made again: {describe_error(error, file.path)}. Correct {file.path}") from error


def get_dependencies(migration: BaseMigration) -> list[str]:
    """Return the keys that a migration depends on.

    Raises:
        BrokenMigration: ``dependencies`` is not a list of pairs or keys.
    """
    if isinstance(migration.dependencies, str) or not isinstance(migration.dependencies, Iterable):
        raise BrokenMigration(f"has dependencies = {migration.dependencies!r}, {_DEPENDENCIES_RULE}")
    keys = []
    for dependency in migration.dependencies:
        key = parse(dependency)
        if key is None:
            raise BrokenMigration(f"has {dependency!r} in its dependencies, {_DEPENDENCIES_RULE}")
        keys.append(key)
    return keys


_DEPENDENCIES_RULE: Final = 'but it has to be a list such as [("app_label", "0001_name")]. Correct it'


def _find_fault(definition: Any) -> str:
    """Return why an object is not a usable class ``Migration``; an empty string if it is one."""
    if definition is None:
        return "has no class Migration. Write one, or let the file's name begin with an underscore if it is none"
    if not isinstance(definition, type) or not issubclass(definition, BaseMigration):
        if isinstance(definition, type) and issubclass(definition, SchemaMigration):
            return "holds a Django migration. Move the file to the app's folder migrations"
        return (
            "has a Migration that is no mass migration. Make it a subclass of SimpleMigration, "
            "MapperMigration, BatchMigration, CustomMigration or BaseMigration"
        )
    kind, methods = next(row for row in _WRITTEN_BY_AUTHOR if issubclass(definition, row[0]))
    for names in methods:
        if all(getattr(definition, name, None) is getattr(kind, name) for name in names):
            return f"has no {names[0]}(). Write it: a {kind.__name__} needs it"
    return ""


def _broken(file: MigrationFile, fault: str) -> BrokenMigration:
    return BrokenMigration(f"{file.key} {fault}.", key=file.key, path=str(file.path))


_imported: dict[str, tuple[Any, str]] = {}
"""Per module: what was imported under its name, and the hash of its text."""


def _import_source(file: MigrationFile) -> Any:
    """Import a file's module and remember its text; a module that is imported already is returned."""
    before = _hash(file.path)
    module = import_module(file.module)
    if not _is_known(file.module, module):
        # A file that is replaced at this very moment: it is not known which of the two was imported.
        _imported[file.module] = module, before if before == _hash(file.path) else ""
    return module


def get_hash(file: MigrationFile) -> str:
    """Return the SHA-256 of the text that was imported, or, if none was, of the file; empty if it is unknown."""
    if _is_known(file.module, sys.modules.get(file.module)):
        return _imported[file.module][1]
    return _hash(file.path)


def _is_known(name: str, module: Any) -> bool:
    return module is not None and name in _imported and _imported[name][0] is module


def _hash(path: Path) -> str:
    with suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""
