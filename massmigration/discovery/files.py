"""Finds the migration files of an app; none of them is imported here."""

from __future__ import annotations

import pkgutil
import re
import traceback
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from django.apps import AppConfig, apps

from massmigration.conf import conf
from massmigration.databases.redaction import get_message
from massmigration.exceptions import LoadError

FOLDER_NAME: Final = "massmigrations"
MAX_NAME_LENGTH: Final = 150  # as the column that keeps it
_NAME: Final = re.compile(r"[0-9]+_\w+")


@dataclass(frozen=True)
class MigrationFile:
    """One file in an app's folder of mass migrations, with the dotted name of the module that it is."""

    key: str
    app_label: str
    name: str
    path: Path
    module: str

    @property
    def number(self) -> int:
        """The number at the front of the name."""
        match = re.match(r"[0-9]+", self.name)
        return int(match[0]) if match else 0

    @property
    def is_well_named(self) -> bool:
        """Whether the name is like ``0001_name`` and not too long to be stored."""
        return bool(_NAME.fullmatch(self.name)) and len(self.name) <= MAX_NAME_LENGTH


@dataclass(frozen=True)
class Folder:
    """An app's package of mass migrations on disk.

    Attributes:
        package: Its dotted name.
        paths: The directories that it consists of; more than one only without ``__init__.py``.
        files: The migrations, sorted.
        strays: Other Python files, which are not run because their names have no number.
    """

    package: str
    paths: tuple[Path, ...]
    files: tuple[MigrationFile, ...]
    strays: tuple[Path, ...]


def get_modules_package(app_config: AppConfig) -> str | None:
    """Return the dotted package of an app's mass migrations, which need not exist; None if the setting says None."""
    return conf.modules.get(app_config.label, f"{app_config.name}.{FOLDER_NAME}")


def find_folder(app_config: AppConfig, *, must_exist: bool = True) -> Folder | None:
    """Look for an app's folder and list it; None if the app has none.

    Raises:
        LoadError: It is not a folder, cannot be read, or (if it ``must_exist``) is named by the setting and not there.
    """
    package = get_modules_package(app_config)
    if package is None:
        return None
    locations = _locate(package, must_exist=must_exist and app_config.label in conf.modules, app_label=app_config.label)
    if locations is None:
        return None
    try:
        found = dict(_list(locations))
    except OSError as error:
        raise LoadError(f"The folder of {package} cannot be read: {error}. Correct its permissions.") from error
    names = sorted(name for name in found if name[0] not in "_~.")
    files = (
        MigrationFile(f"{app_config.label}:{name}", app_config.label, name, found[name], f"{package}.{name}")
        for name in names
        if name[0] in "0123456789"
    )
    strays = (found[name] for name in names if name[0] not in "0123456789")
    return Folder(package, tuple(map(Path, locations)), tuple(files), tuple(strays))


def describe_error(error: BaseException, path: Path | None = None) -> str:
    """Return an error's class and message on one line, and the line in the file ``path`` if it came from there."""
    if isinstance(error, SyntaxError):
        text = f"{type(error).__name__}: {get_message(error)}"  # names file and line itself
    else:
        name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        text = f"{name}: {get_message(error)}".rstrip(": ")
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        text += f" (line {lines[-1]})" if lines else ""
    return " ".join(text.split()).rstrip(".")


def _locate(package: str, *, must_exist: bool, app_label: str) -> list[str] | None:
    """Return the directories of a package without importing it, only what it lies in."""
    reason = "there is no such package"
    try:
        spec = find_spec(package)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        spec, reason = None, str(error)
    except BaseException as error:
        raise LoadError(
            f"{package}, the package of {app_label}'s mass migrations, cannot be read: "
            f"{describe_error(error)}. Correct it."
        ) from error
    if spec is None and must_exist:
        raise LoadError(
            f"MASSMIGRATION_MODULES names {package!r} for the app {app_label}, but it cannot be found: "
            f"{reason}. Correct the setting, or make the first migration with makemassmigration."
        )
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        raise LoadError(
            f"{package}, the package of {app_label}'s mass migrations, is a single file. Make a folder of "
            "that name, and move the file into it as 0001_name.py."
        )
    return list(spec.submodule_search_locations)


def _list(locations: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield name and path of each module, what Python prefers last."""
    for module in pkgutil.iter_modules(locations):  # compiled files, zip archives
        if not module.ispkg:
            spec = module.module_finder.find_spec(module.name, None)
            if spec is not None and spec.origin:
                yield module.name, Path(spec.origin)
    for location in reversed(locations):
        if Path(location).is_dir():
            for path in Path(location).iterdir():
                if path.suffix == ".py" and path.is_file():
                    yield path.name.removesuffix(".py"), path


def find_times(broken: Container[str]) -> dict[Path, int]:
    """Return all files that there are now; a broken one with the time of its last change.

    Args:
        broken: The keys of those that could not be imported.
    """
    found = {}
    for app_config in apps.get_app_configs():
        with suppress(LoadError):
            folder = find_folder(app_config)
            for file in folder.files if folder else ():
                with suppress(OSError):
                    found[file.path] = file.path.stat().st_mtime_ns if file.key in broken else 0
    return found
