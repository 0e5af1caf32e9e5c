"""What ``manage.py check`` says about settings and migration files, each problem with its own id and hint."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.management import get_commands
from django.db import connections
from django.http.request import validate_host

from massmigration.backends import djangae
from massmigration.backends.base import BaseBackend, get_backend
from massmigration.backends.callers import is_app_engine, is_emulated
from massmigration.backends.cloudtasks import CloudTasksBackend, find_missing_settings, get_task_path
from massmigration.backends.djangae import DjangaeBackend
from massmigration.backends.local import check_interpreter, find_log_dir_fault
from massmigration.conf import SETTING_NAMES, conf
from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import BackendUnreachable, ConfigurationError
from massmigration.loader import MigrationLoader, get_loader
from massmigration.problems import describe_cycle, join_words

TAG: Final = "massmigration"

_UNTIL_THEN: Final = "Until then it cannot be run; other migrations are not affected."
_SEE_TRACEBACK: Final = "See the traceback with: python manage.py shell -c '__import__(\"{module}\")'."


class Fault(NamedTuple):
    """One problem that a check found.

    Attributes:
        id: ``E001`` for an error, ``W001`` for a warning.
        app_label: The app it is about.
        place: The file it is in, or the app's label.
        text: What is wrong.
        hint: What to do.
    """

    id: str
    app_label: str
    place: Path | str
    text: str
    hint: str


def register_checks() -> None:
    """Register all checks under the tag ``massmigration``."""
    checks.register(check_settings, TAG)
    checks.register(check_migrations, TAG)
    checks.register(check_cloud_tasks, TAG)
    checks.register(check_djangae, TAG)


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Check the values of our settings (E006) and look for misspelt ones (W003)."""
    faults: dict[str, None] = {}  # each once, although reading one setting may read another
    for name in SETTING_NAMES:
        try:
            value = getattr(conf, name.removeprefix("MASSMIGRATION_").lower())
            if name == "MASSMIGRATION_BACKEND":
                get_backend(BaseMigration("massmigration", "0000_check"))
            elif name == "MASSMIGRATION_MODULES":
                _check_labels(value)
            elif name == "MASSMIGRATION_PYTHON":
                check_interpreter()
            elif name == "MASSMIGRATION_LOG_DIR" and (fault := find_log_dir_fault(value)):
                faults[f"MASSMIGRATION_LOG_DIR is {value}, but {fault}. Set it to a folder that can be written to."] = (
                    None
                )
        except (BackendUnreachable, ConfigurationError) as error:
            faults[str(error)] = None
    hint = "The settings and their defaults are listed in the documentation of massmigration."
    messages: list[checks.CheckMessage] = [checks.Error(fault, hint=hint, id="massmigration.E006") for fault in faults]
    for name in sorted(set(dir(settings)) - set(SETTING_NAMES)):
        close = difflib.get_close_matches(name, SETTING_NAMES, n=1, cutoff=0.9)
        if close and name.startswith("MASSMIGRATION_"):
            text, hint = f"{name} is not a setting of massmigration.", f"Did you mean {close[0]}?"
            messages.append(checks.Warning(text, hint=hint, id="massmigration.W003"))
    return messages


def check_migrations(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Check the migration files of the given apps, or of all.

    One broken file is no reason to keep a site from starting. So its problem is an error where the checks
    were asked for, and a warning where another command only comes past them.
    """
    try:
        loader = get_loader()
    except ConfigurationError:  # check_settings tells it
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


def check_cloud_tasks(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Check what CloudTasksBackend needs (E010, E011) and what hinders it (W004 to W006), if a migration runs on it."""
    if not _uses(CloudTasksBackend):
        return []
    until_then = "Until then migrations on CloudTasksBackend cannot be started."
    messages: list[checks.CheckMessage] = []
    try:
        for fault in find_missing_settings():
            messages.append(checks.Error(fault, hint=until_then, id="massmigration.E010"))
        try:
            path = get_task_path()
        except ConfigurationError as error:
            messages.append(checks.Error(str(error), hint=until_then, id="massmigration.E011"))
        else:
            messages += _check_http(conf.task_url) if conf.task_url else _check_redirect(path)
    except ConfigurationError:  # check_settings tells it
        pass
    return messages


def check_djangae(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Check what DjangaeBackend needs (E012) and what hinders it (W006 to W008), if a migration runs on it."""
    if not _uses(DjangaeBackend):
        return []
    messages: list[checks.CheckMessage] = [
        checks.Error(f"DjangaeBackend cannot be used. {fault.text}", hint=fault.hint, id="massmigration.E012")
        for fault in djangae.find_setup_faults()
    ]
    if not is_app_engine() and not is_emulated():
        text = "DjangaeBackend is used off App Engine, where anybody can have djangae's handler run code of theirs."
        hint = (
            "The handler unpickles what comes with the header X-AppEngine-TaskName, which only App Engine takes off "
            "requests from outside. Use massmigration.backends.cloudtasks.CloudTasksBackend, and take the URLs of "
            "djangae.tasks out. For development, set TASKS_EMULATOR_HOST."
        )
        messages.append(checks.Warning(text, hint=hint, id="massmigration.W007"))
    messages += [checks.Warning(text, hint=hint, id="massmigration.W008") for text, hint in djangae.find_wrappings()]
    path = djangae.get_handler_path()
    return messages if path is None else [*messages, *_check_redirect(path)]


def _uses(backend: type[BaseBackend]) -> bool:
    try:
        loaded = [migration for migration in get_loader().migrations.values() if migration.backend]
    except ConfigurationError:
        loaded = []
    for migration in (BaseMigration("massmigration", "0000_check"), *loaded):
        try:
            if isinstance(get_backend(migration), backend):
                return True
        except ConfigurationError:  # the other checks tell it
            continue
    return False


def _check_http(url: str) -> Iterator[checks.CheckMessage]:
    host = urlsplit(url).hostname or ""
    if url.startswith("http://") and not is_emulated():
        text = "MASSMIGRATION_TASK_URL begins with http://, so that tokens of Cloud Tasks can be read on their way."
        yield checks.Warning(text, hint="Let it begin with https://.", id="massmigration.W004")
    allowed = settings.ALLOWED_HOSTS or ([".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
    if not validate_host(host, allowed):
        text = (
            f"ALLOWED_HOSTS does not have {host!r}, the host in MASSMIGRATION_TASK_URL, so each task is answered 400."
        )
        yield checks.Warning(text, hint=f"Add {host!r} to ALLOWED_HOSTS.", id="massmigration.W005")


def _check_redirect(path: str) -> Iterator[checks.CheckMessage]:
    is_exempt = any(re.search(pattern, path.lstrip("/")) for pattern in settings.SECURE_REDIRECT_EXEMPT)
    middleware = "django.middleware.security.SecurityMiddleware"
    if settings.SECURE_SSL_REDIRECT and middleware in settings.MIDDLEWARE and not is_exempt:
        text = (
            "SECURE_SSL_REDIRECT is on, but App Engine delivers tasks without TLS and follows no redirects, so none "
            "arrives."
        )
        hint = f'Add r"^{path.lstrip("/").removesuffix("run/")}" to SECURE_REDIRECT_EXEMPT.'
        yield checks.Warning(text, hint=hint, id="massmigration.W006")


def _get_worst_level() -> int:
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    return checks.WARNING if command != "check" and command in get_commands() else checks.ERROR


def _check_files(loader: MigrationLoader) -> Iterator[Fault]:
    for key, error in loader.broken.items():
        file = loader.files[key]
        if error.__cause__ is None:
            yield Fault("E002", file.app_label, file.path, str(error), _UNTIL_THEN)
        else:
            hint = f"{_SEE_TRACEBACK.format(module=file.module)} {_UNTIL_THEN}"
            yield Fault("E001", file.app_label, file.path, str(error), hint)


def _check_dependencies(loader: MigrationLoader) -> Iterator[Fault]:
    for child, parent in loader.unknown_dependencies():
        file = loader.files[child]
        text = f"{child} depends on {parent}, which does not exist."
        close = difflib.get_close_matches(parent, loader.files, n=1)
        guess = f"Did you mean {close[0]}? " if close else ""
        hint = f"{guess}Django's own migrations belong in schema_dependencies. {_UNTIL_THEN}"
        yield Fault("E003", file.app_label, file.path, text, hint)


def _check_cycles(loader: MigrationLoader) -> Iterator[Fault]:
    for cycle in loader.graph.cycles():
        file = loader.files[cycle[0]]
        hint = "Take a dependency out. Until then none of these can be run, nor can what depends on them."
        yield Fault("E004", file.app_label, file.path, describe_cycle(cycle), hint)


def _check_numbers(loader: MigrationLoader) -> Iterator[Fault]:
    for app_label, number, names in loader.duplicate_numbers():
        free = max(file.number for file in loader.files.values() if file.app_label == app_label) + 1
        text = f"{app_label} has {len(names)} mass migrations with number {number}: {join_words(names)}."
        hint = (
            f"Give one of them the next free number, {free:04d}: one that was not run anywhere yet, as runs are "
            "remembered by the file's name. Until then both can be run."
        )
        yield Fault("E005", app_label, app_label, text, hint)


def _check_aliases(loader: MigrationLoader) -> Iterator[Fault]:
    for key, migration in loader.migrations.items():
        file, allowed = loader.files[key], migration.allowed_db_aliases
        if isinstance(allowed, str) or not isinstance(allowed, Collection | None):
            text = f"{key} has allowed_db_aliases = {allowed!r}, but it has to be a list of aliases, or None."
            yield Fault("E007", file.app_label, file.path, text, "Correct it.")
            continue
        other = getattr(migration, "other_database", None)
        named = [("allowed_db_aliases", alias) for alias in allowed or ()]
        named += [("other_database", other)] if other else []
        for attribute, alias in named:
            if alias not in connections:
                text = f"{key} has {alias!r} in {attribute}, but DATABASES has no such alias."
                hint = f"Correct it, or add it to DATABASES, which has {join_words(connections)}."
                yield Fault("E007", file.app_label, file.path, text, hint)


def _check_folders(loader: MigrationLoader) -> Iterator[Fault]:
    for app_label, error in loader.unreadable.items():
        hint = f"Until then {app_label} has no mass migrations; other apps are not affected."
        yield Fault("E008", app_label, app_label, str(error), hint)


def _check_backends(loader: MigrationLoader) -> Iterator[Fault]:
    for key, migration in loader.migrations.items():
        if migration.backend:
            try:
                get_backend(migration)
            except ConfigurationError as error:
                file = loader.files[key]
                yield Fault("E009", file.app_label, file.path, f"{key} cannot be run: {error}", _UNTIL_THEN)


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
    _check_leaves,
    _check_strays,
)


def _check_labels(modules: dict[str, str | None]) -> None:
    labels = {app_config.label for app_config in apps.get_app_configs()}
    if unknown := sorted(set(modules) - labels):
        raise ConfigurationError(
            f"MASSMIGRATION_MODULES names {join_words(unknown)}, but no installed app has this label. "
            "Correct it, or take it out."
        )


def _shorten(place: Path | str) -> str:
    """Return a path as seen from the working directory, where it lies below."""
    if isinstance(place, Path) and place.is_relative_to(Path.cwd()):
        return str(place.relative_to(Path.cwd()))
    return str(place)
