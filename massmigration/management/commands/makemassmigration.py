"""The command that writes a new migration file: the next number, the dependency, two methods to fill in."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from django.apps import AppConfig, apps
from django.core.management.base import CommandError, CommandParser
from django.core.management.utils import run_formatters

from massmigration.discovery.files import MAX_NAME_LENGTH, Folder, find_folder, get_modules_package
from massmigration.discovery.loader import clear_loader
from massmigration.management import exits
from massmigration.management.base import MassMigrationCommand
from massmigration.management.rendering import KINDS, find_model, find_template, render

_METHODS: Final = {
    "simple": "operation()",
    "custom": "get_items() and operation()",
}


class Command(MassMigrationCommand):
    """``manage.py makemassmigration APP NAME``."""

    help = "Writes a new mass migration into an app's folder massmigrations."
    escapes = False
    requires_system_checks: list[str] = []  # a broken migration is no reason to refuse the next one

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("app_label", metavar="APP", help="Label of an installed app.")
        parser.add_argument(
            "name",
            metavar="NAME",
            help="Name of the migration: letters, digits, underscores. It gets the next number.",
        )
        parser.add_argument(
            "--template",
            default="mapper",
            metavar=f"{'|'.join(KINDS)}|PATH",
            help="What to begin with; PATH: your own file, in Django's template language. Default: mapper.",
        )
        parser.add_argument("--model", metavar="APP.MODEL", help="The model whose rows are migrated.")
        parser.add_argument("--dry-run", action="store_true", help="Show the file; write nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the file, or show it."""
        template = find_template(options["template"])
        model = find_model(options["model"]) if options["model"] else None
        check_name(options["name"])
        app_config = find_app(options["app_label"])
        package, folder = find_folder_of(app_config)
        number, latest = get_latest(folder)
        name = f"{number + 1:04d}_{options['name']}"
        if len(name) > MAX_NAME_LENGTH:
            raise exits.refuse(
                f"{options['name']!r} is too long. With its number a name has at most {MAX_NAME_LENGTH} "
                "characters: shorten it."
            )
        text = render(
            template,
            app_label=app_config.label,
            name=name,
            dependencies=[(app_config.label, latest) for latest in latest],
            model=model,
        )
        path = find_directory(app_config, package, folder) / f"{name}.py"
        if options["dry_run"]:
            self.stdout.write(self.style.MIGRATE_HEADING(f"Would write {shorten(path)}:"))
            self.stdout.write(text, ending="")
            return
        write(path, text)
        clear_loader()
        format_file(path)
        if options["verbosity"]:
            methods = _METHODS.get(options["template"], "get_queryset() and operation()")
            self.stdout.write(self.style.SUCCESS(f"Wrote {shorten(path)}"))
            if options["template"] in KINDS:
                self.stdout.write(f"Fill in its {methods}, then run it:")
            self.stdout.write(f"  python manage.py massmigrate {app_config.label} {name}")


def check_name(name: str) -> None:
    """Raise CommandError if a migration cannot be called that."""
    if re.fullmatch(r"0[0-9]*_\w*", name):
        raise exits.refuse(f"{name!r} begins with a number. Leave it out: the next one is put in front.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", name):
        raise exits.refuse(
            f"{name!r} is not a good name for a migration. Use letters from a to z, digits and underscores, "
            "such as add_slugs."
        )


def find_app(app_label: str) -> AppConfig:
    """Return an installed app; CommandError if there is none with this label."""
    try:
        return apps.get_app_config(app_label)
    except LookupError as error:
        labels = ", ".join(sorted(app_config.label for app_config in apps.get_app_configs()))
        raise exits.refuse(
            f"No installed app has the label {app_label!r}. Choose among those of INSTALLED_APPS: {labels}."
        ) from error


def find_folder_of(app_config: AppConfig) -> tuple[str, Folder | None]:
    """Return the app's package and, if it is there, its folder; CommandError if it cannot have one."""
    package = get_modules_package(app_config)
    if package is None:
        raise exits.refuse(
            f"MASSMIGRATION_MODULES says that the app {app_config.label} has no mass migrations. "
            "Name a package for it there, or leave the app out of the setting."
        )
    return package, find_folder(app_config, must_exist=False)


def find_directory(app_config: AppConfig, package: str, folder: Folder | None) -> Path:
    """Return the directory of the app's package, which need not exist; CommandError if it cannot."""
    if folder is not None:
        return folder.paths[0]
    parents, missing = package.split("."), list[str]()
    while len(parents) > 1:
        missing.insert(0, parents.pop())
        with suppress(ModuleNotFoundError):
            spec = find_spec(".".join(parents))
            if spec is not None and spec.submodule_search_locations:
                is_app = ".".join(parents) == app_config.name
                root = app_config.path if is_app else next(iter(spec.submodule_search_locations))
                return Path(root).joinpath(*missing)
    raise exits.refuse(
        f"There is no place for {package}, the package of {app_config.label}'s mass migrations: {parents[0]} "
        "is not a package. Name another one in MASSMIGRATION_MODULES."
    )


def get_latest(folder: Folder | None) -> tuple[int, list[str]]:
    """Return the highest number in the folder, and the names that have the highest and can be depended on."""
    files = folder.files if folder is not None else ()
    usable = [file for file in files if file.is_well_named]
    highest = max((file.number for file in usable), default=0)
    names = [file.name for file in usable if file.number == highest]
    return max((file.number for file in files), default=0), names


def write(path: Path, text: str) -> None:
    """Write a new file, and make its folder a package; CommandError if it is there or cannot be written."""
    directory = path.parent
    try:
        for parent in (*reversed(directory.parents), directory):
            if not parent.exists():
                parent.mkdir()
                (parent / "__init__.py").touch()
        if not (directory / "__init__.py").exists():
            (directory / "__init__.py").touch()
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise CommandError(f"{shorten(path)} is there already, and was left as it is. Try again.") from error
    except OSError as error:
        raise CommandError(
            f"{shorten(path)} cannot be written: {error.strerror or error}. Correct the permissions, or "
            "name another package in MASSMIGRATION_MODULES."
        ) from error


def format_file(path: Path) -> None:
    """Format a file with black, as Django does with its migrations, or with ruff, if one of them is there."""
    if shutil.which("black"):
        run_formatters([str(path)])
    elif ruff := shutil.which("ruff"):
        with suppress(OSError):
            subprocess.run([ruff, "format", "--no-cache", "--quiet", "--", str(path)], capture_output=True, check=False)


def shorten(path: Path) -> str:
    """Return a path as seen from the working directory, where it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
