"""What ``manage.py check`` says about migration files, each problem with its own id and hint."""

from __future__ import annotations

import difflib
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from django.apps import AppConfig
from django.core import checks
from django.core.management import get_commands
from django.db import connections
from django.db.migrations.loader import MigrationLoader as SchemaLoader

from massmigration.backends.base import get_backend
from massmigration.checks.definitions import (
    UNTIL_THEN,
    Fault,
    check_attribute_values,
    check_methods,
    check_names,
    check_shared_values,
    make_fault,
)
from massmigration.discovery.graph import describe_cycle
from massmigration.discovery.loader import MigrationLoader, get_loader
from massmigration.discovery.reference import join_words
from massmigration.engine.attributes import find_attribute_faults
from massmigration.exceptions import ConfigurationError

_SEE_TRACEBACK: Final = "See the traceback with: python manage.py shell -c '__import__(\"{module}\")'."


def check_migrations(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Check the migration files of the given apps, or of all.

    A broken file must not keep a site from starting. So it is an error for ``manage.py check``, and a warning where
    another command runs the checks.
    """
    try:
        loader = get_loader()
    except ConfigurationError:  # check_settings reports it
        return []
    labels = None if app_configs is None else {app_config.label for app_config in app_configs}
    worst = _get_worst_level()
    return [
        checks.CheckMessage(
            min(worst, checks.ERROR if fault.id[0] == "E" else checks.WARNING),
            fault.text,
            hint=fault.hint,
            obj=_shorten(fault.place),
            id=f"massmigration.{fault.id}",
        )
        for find_faults in _CHECKS
        for fault in find_faults(loader)
        if labels is None or fault.app_label in labels
    ]


def _get_worst_level() -> int:
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    return checks.WARNING if command != "check" and command in get_commands() else checks.ERROR


def _check_files(loader: MigrationLoader) -> Iterator[Fault]:
    for key, error in loader.broken.items():
        if error.__cause__ is None:
            yield make_fault("E002", loader, key, str(error), UNTIL_THEN)
        else:
            hint = f"{_SEE_TRACEBACK.format(module=loader.files[key].module)} {UNTIL_THEN}"
            yield make_fault("E001", loader, key, str(error), hint)


def _check_dependencies(loader: MigrationLoader) -> Iterator[Fault]:
    for child, parent in loader.unknown_dependencies:
        text = f"{child} depends on {parent}, which does not exist."
        if _is_django_migration(parent):
            guess = f"{parent.replace(':', '.')} is a Django migration: name it in schema_dependencies instead."
        else:
            close = difflib.get_close_matches(parent, loader.files, n=1)
            guess = f"{f'Did you mean {close[0]}? ' if close else ''}Django migrations belong in schema_dependencies."
        yield make_fault("E003", loader, child, text, f"{guess} {UNTIL_THEN}")


def _is_django_migration(key: str) -> bool:
    """Return whether an app has a Django migration of this name."""
    app_label, _, name = key.partition(":")
    try:
        module, _ = SchemaLoader.migrations_module(app_label)
        return module is not None and find_spec(f"{module}.{name}") is not None
    except (ImportError, LookupError, ValueError):
        return False


def _check_cycles(loader: MigrationLoader) -> Iterator[Fault]:
    for cycle in loader.graph.cycles():
        hint = "Take a dependency out. Until then none of these can be run, nor can what depends on them."
        yield make_fault("E004", loader, cycle[0], describe_cycle(cycle), hint)


def _check_numbers(loader: MigrationLoader) -> Iterator[Fault]:
    names: dict[tuple[str, int], list[str]] = defaultdict(list)
    for file in loader.files.values():
        names[file.app_label, file.number].append(file.name)
    for (app_label, number), shared in sorted(names.items()):
        if len(shared) == 1:
            continue
        free = max(other for label, other in names if label == app_label) + 1
        text = f"{app_label} has {len(shared)} mass migrations with number {number:04d}: {join_words(sorted(shared))}."
        hint = (
            f"Give one of them the next free number, {free:04d}: one that was not run anywhere yet, as runs are "
            "remembered by the file's name. Until then both can be run."
        )
        yield Fault("E005", app_label, app_label, text, hint)


def _check_aliases(loader: MigrationLoader) -> Iterator[Fault]:
    for key, migration in loader.migrations.items():
        allowed = migration.allowed_db_aliases
        if isinstance(allowed, str) or not isinstance(allowed, Collection | None):
            text = f"{key} has allowed_db_aliases = {allowed!r}, but it has to be a list of aliases, or None."
            yield make_fault("E007", loader, key, text, "Correct it.")
            continue
        other = getattr(migration, "other_database", None)
        named = [("allowed_db_aliases", alias) for alias in allowed or ()]
        named += [("other_database", other)] if other else []
        for attribute, alias in named:
            if alias not in connections:
                text = f"{key} has {alias!r} in {attribute}, but DATABASES has no such alias."
                hint = f"Correct it, or add it to DATABASES, which has {join_words(connections)}."
                yield make_fault("E007", loader, key, text, hint)


def _check_folders(loader: MigrationLoader) -> Iterator[Fault]:
    for app_label, error in loader.unreadable.items():
        hint = f"Until then {app_label} has no mass migrations; other apps are not affected."
        yield Fault("E008", app_label, app_label, str(error), hint)


def _check_backends(loader: MigrationLoader) -> Iterator[Fault]:
    for key, migration in loader.migrations.items():
        is_declared = not any(name in ("backend", "backend_params") for name, _ in find_attribute_faults(migration))
        if is_declared and (migration.backend or migration.backend_params):
            try:
                get_backend(migration)
            except ConfigurationError as error:
                yield make_fault("E009", loader, key, f"{key} cannot be run: {error}", UNTIL_THEN)


def _check_leaves(loader: MigrationLoader) -> Iterator[Fault]:
    in_cycles = {key for cycle in loader.graph.cycles() for key in cycle}
    for app_label, folder in loader.folders.items():
        leaves = loader.graph.leaves(app_label)
        is_known = not any(file.key in loader.broken or file.key in in_cycles for file in folder.files)
        if is_known and len(leaves) > 1:
            names = join_words(loader.files[key].name for key in leaves)
            text = f"{app_label} has {len(leaves)} mass migrations that no later one depends on: {names}."
            hint = "All of them are run, in no fixed order. If one needs another, name it in its dependencies."
            yield Fault("W001", app_label, app_label, text, hint)


def _check_strays(loader: MigrationLoader) -> Iterator[Fault]:
    for app_label, folder in loader.folders.items():
        for path in folder.strays:
            text = f"{path.name} has no number at the front of its name, so it is not run."
            hint = f"Rename it to 0001_{path.name} if it is a migration, to _{path.name} if it is not."
            yield Fault("W002", app_label, path, text, hint)


_CHECKS: Final = (
    _check_files,
    _check_dependencies,
    _check_cycles,
    _check_numbers,
    _check_aliases,
    _check_folders,
    _check_backends,
    check_attribute_values,
    check_methods,
    check_shared_values,
    check_names,
    _check_leaves,
    _check_strays,
)


def _shorten(place: Path | str) -> str:
    """Return a path as seen from the working directory, where it lies below."""
    if isinstance(place, Path) and place.is_relative_to(Path.cwd()):
        return str(place.relative_to(Path.cwd()))
    return str(place)
