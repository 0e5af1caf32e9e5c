"""Knows all migrations of the installed apps: their files, their classes, their order and their problems."""

from __future__ import annotations

import copy
import importlib
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.signals import setting_changed

from massmigration.definitions.base import BaseMigration
from massmigration.discovery.files import Folder, MigrationFile, find_folder, find_times
from massmigration.discovery.graph import MigrationGraph, find_problems, get_sort_key
from massmigration.discovery.importer import get_dependencies, get_hash, import_migration, make_again
from massmigration.discovery.reference import Reference, find, make_not_found, parse
from massmigration.exceptions import BrokenMigration, LoadError, MigrationNotFound


class MigrationLoader:
    """The migrations of all installed apps, read from disk when it is made.

    Attributes:
        files: Every file that is named as a migration, by key.
        migrations: An instance of each that could be imported, also if it cannot be run because of what it
            depends on. All threads share it, so only its declarations are read, and none of its methods is called.
        broken: Why each of the others could not.
        graph: What depends on what; broken files are nodes without dependencies.
        folders: The folder of each app that has one.
        unreadable: Why an app's folder could not be listed, by app label.
        unknown_dependencies: ``(child, parent)`` for each dependency on a migration that does not exist.
    """

    def __init__(self) -> None:
        apps.check_models_ready()
        self.files: dict[str, MigrationFile] = {}
        self.migrations: dict[str, BaseMigration] = {}
        self.broken: dict[str, BrokenMigration] = {}
        self.graph = MigrationGraph()
        self.folders: dict[str, Folder] = {}
        self.unreadable: dict[str, LoadError] = {}
        self._hashes: dict[str, str] = {}
        self.unknown_dependencies: list[tuple[str, str]] = []
        for app_config in apps.get_app_configs():
            try:
                if folder := find_folder(app_config):
                    self.folders[app_config.label] = folder
            except LoadError as error:
                self.unreadable[app_config.label] = error
        for folder in self.folders.values():
            for file in folder.files:
                self._read(file)
        self._connect()
        self._problems = find_problems(self.graph, self.broken, self.unknown_dependencies)

    def get(self, reference: Reference) -> BaseMigration:
        """Return a new instance of a migration that can be run.

        Raises:
            MigrationNotFound: There is no such file.
            BrokenMigration: It, or one that it depends on, does not import or is not usable.
            UnknownDependency: It, or one that it depends on, depends on something that does not exist.
            CircularDependency: It, or one that it depends on, depends on itself.
        """
        key = self.resolve(reference)
        if problem := self.find_problem(key):
            raise problem
        return self.make(key)

    def make(self, key: str) -> BaseMigration:
        """Return another instance of one of ``migrations``, whatever it depends on; errors as ``make_again``."""
        return make_again(self.files[key], self.migrations[key])

    def find_problem(self, key: str) -> LoadError | None:
        """Return why a migration cannot be run, as an error that may be raised; None if it can."""
        if key not in self.files:
            return self._make_not_found(key)
        if key not in self._problems:
            return None
        problem = copy.copy(self._problems[key])  # the original would collect a traceback at each raise
        problem.__cause__ = self._problems[key].__cause__
        return problem

    def resolve(self, reference: Reference, is_recorded: Callable[[str], bool] = lambda key: False) -> str:
        """Return the key that a reference stands for; the migration itself may be broken.

        Raises:
            MigrationNotFound: It is no reference, or its key has neither a file nor, if ``is_recorded``, a record.
        """
        key = parse(reference)
        if key is None or not (isinstance(reference, BaseMigration) or key in self.files or is_recorded(key)):
            raise self._make_not_found(reference)
        return key

    def find(self, app_label: str, prefix: str, records: Collection[str] = ()) -> str:
        """Return the key of the migration that a prefix stands for; arguments and errors as ``reference.find``."""
        return find(app_label, prefix, self._get_keys(), records)

    def app_keys(self, app_label: str) -> list[str]:
        """Return the keys of an app's files, dependencies first; those in a circle come last."""
        return [key for key in self._get_keys() if self.files[key].app_label == app_label]

    def source_hash(self, key: str) -> str:
        """Return the SHA-256 of the text that the migration was imported from; empty if it is unknown.

        A file that was changed afterwards makes no difference: this process works with what it has imported.
        """
        if key not in self.files:
            raise self._make_not_found(key)
        return self._hashes.get(key, "")

    def _read(self, file: MigrationFile) -> None:
        self.files[file.key] = file
        self.graph.add_node(file.key)
        try:
            self.migrations[file.key] = import_migration(file)
        except BrokenMigration as error:
            self.broken[file.key] = error
        self._hashes[file.key] = get_hash(file)

    def _connect(self) -> None:
        for key, migration in self.migrations.items():
            for parent in get_dependencies(migration):
                if parent in self.files:
                    self.graph.add_dependency(key, parent)
                else:
                    self.unknown_dependencies.append((key, parent))

    def _get_keys(self) -> list[str]:
        keys = self.graph.order()
        return keys + sorted(self.files.keys() - set(keys), key=get_sort_key)

    def _make_not_found(self, reference: object) -> MigrationNotFound:
        error = make_not_found(reference, self._get_keys())
        unreadable = self.unreadable.get((error.key or "").partition(":")[0])
        return error if unreadable is None else MigrationNotFound(str(unreadable), key=error.key)


class _Cache:
    """The process's loader; a lock keeps threads from reading the files at the same time."""

    PATIENCE_SECONDS: Final = 1.0

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.loader: MigrationLoader | None = None
        self.is_reading = False
        self.seen: dict[Path, int] = {}
        self.looked_at = 0.0

    def read(self) -> MigrationLoader:
        if self.is_reading:
            raise LoadError(
                "The migrations were asked for while their files are being read. Do not ask for them when a "
                "module is imported, but inside of a function."
            )
        self.is_reading = True
        try:
            self.loader = loader = MigrationLoader()
        finally:
            self.is_reading = False
        self.seen, self.looked_at = find_times(loader.broken), time.monotonic()
        return loader

    def is_stale(self) -> bool:
        """Look once a second whether a file was added, removed, or perhaps repaired.

        The development server restarts when a loaded module changes, but does not notice new and broken files.
        """
        if self.loader is None or self.is_reading or not settings.DEBUG:
            return False
        if time.monotonic() - self.looked_at < self.PATIENCE_SECONDS:
            return False
        self.looked_at = time.monotonic()
        return find_times(self.loader.broken) != self.seen


_cache: Final = _Cache()


def get_loader() -> MigrationLoader:
    """Return the process's loader; the first call reads the files.

    With ``DEBUG`` files that were added, removed or repaired since are noticed within a second.

    Raises:
        AppRegistryNotReady: Django is not set up yet.
        ConfigurationError: ``MASSMIGRATION_MODULES`` has a value that cannot work.
    """
    if _cache.loader is not None and not settings.DEBUG:
        return _cache.loader
    with _cache.lock:
        if _cache.loader is None or _cache.is_stale():
            return _cache.read()
        return _cache.loader


def clear_loader() -> None:
    """Forget the process's loader: the next ``get_loader()`` reads again, keeping what is imported."""
    with _cache.lock:
        _cache.loader = None
        importlib.invalidate_caches()


def _on_setting_changed(*, setting: str, **kwargs: Any) -> None:
    if setting in {"INSTALLED_APPS", "MASSMIGRATION_MODULES"}:
        clear_loader()


setting_changed.connect(_on_setting_changed, dispatch_uid="massmigration.discovery.loader")
