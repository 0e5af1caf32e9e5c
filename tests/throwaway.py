"""Django apps that live for one test: written to a temporary folder, installed, and forgotten afterwards."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.apps import apps

from massmigration.discovery.files import get_modules_package
from massmigration.discovery.loader import MigrationLoader, clear_loader, get_loader

SIMPLE = """\
from massmigration import SimpleMigration


class Migration(SimpleMigration):
    dependencies = {dependencies!r}

    def operation(self, db_alias):
        pass
"""


def simple(*dependencies: Any) -> str:
    """Return the text of a migration that depends on others."""
    return SIMPLE.format(dependencies=list(dependencies))


class Throwaway:
    """Makes apps below ``root``, which is on ``sys.path``."""

    def __init__(self, root: Path, settings: Any) -> None:
        self.root = root
        self.settings = settings

    def write(self, path: str, text: str = "") -> Path:
        """Write a file, and the folders that it needs."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def make_app(self, package: str, files: dict[str, str] | None = None, *, has_init: bool = True) -> Path:
        """Write and install an app with these files in its folder ``massmigrations``; return the app's folder."""
        folder = package.replace(".", "/")
        for depth in range(len(package.split("."))):
            self.write("/".join(package.split(".")[: depth + 1]) + "/__init__.py")
        if files is not None and has_init:
            self.write(f"{folder}/massmigrations/__init__.py")
        for name, text in (files or {}).items():
            self.write(f"{folder}/massmigrations/{name}", text)
        self.install(package)
        return self.root / folder

    def install(self, *entries: str) -> None:
        """Add entries to INSTALLED_APPS."""
        importlib.invalidate_caches()
        self.settings.INSTALLED_APPS = [*self.settings.INSTALLED_APPS, *entries]


@contextmanager
def throwaway_apps(root: Path, settings: Any) -> Iterator[Throwaway]:
    """Give a maker of apps; afterwards none of their modules is left, and no loader that knows them."""
    sys.path.insert(0, str(root))
    before, writes_bytecode = set(sys.modules), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a file that is written twice within a second is read twice
    clear_loader()
    try:
        yield Throwaway(root, settings)
    finally:
        sys.path.remove(str(root))
        sys.dont_write_bytecode = writes_bytecode
        ours = [name for name in set(sys.modules) - before if _is_below(sys.modules[name], root)]
        for name in ours:  # only now: a namespace package looks for its parent when it is asked for its path
            del sys.modules[name]
        for path in [path for path in sys.path_importer_cache if path.startswith(str(root))]:
            del sys.path_importer_cache[path]
        importlib.invalidate_caches()
        clear_loader()


def reload_loader() -> MigrationLoader:
    """Forget what was imported from the folders of all apps, read them again, and return the new loader."""
    packages = {package for app_config in apps.get_app_configs() if (package := get_modules_package(app_config))}
    for module in list(sys.modules):
        if any(module == package or module.startswith(f"{package}.") for package in packages):
            del sys.modules[module]
    clear_loader()
    return get_loader()


def _is_below(module: Any, root: Path) -> bool:
    places = [getattr(module, "__file__", None) or "", *map(str, getattr(module, "__path__", ()))]
    return any(place.startswith(str(root)) for place in places)
