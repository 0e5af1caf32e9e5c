"""What ``manage.py check`` says about our settings, and what each backend says about the site."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks

from massmigration.backends.base import BaseBackend, get_backend
from massmigration.backends.local import check_interpreter
from massmigration.backends.logfiles import find_log_dir_fault
from massmigration.conf import SETTING_NAMES, conf
from massmigration.databases.capacity import find_pool_fault
from massmigration.definitions.base import BaseMigration
from massmigration.discovery.loader import get_loader
from massmigration.discovery.reference import join_words
from massmigration.exceptions import BackendUnreachable, ConfigurationError


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
                faults[
                    f"MASSMIGRATION_LOG_DIR is {value}, but {fault}. Set it to a folder that only you can write to."
                ] = None
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


def check_pools(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Check that a database's pool of connections is large enough for one worker (W017)."""
    return [
        checks.Warning(
            f"Database '{alias}' cannot be migrated well: {fault}.",
            hint="Set max_size of its pool to twice the number of threads that work in one process, or more.",
            id="massmigration.W017",
        )
        for alias, database in settings.DATABASES.items()
        if (fault := find_pool_fault(database))
    ]


def check_backends(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Have each backend that a migration runs on check the site (E010 to E012, W004 to W006, W008)."""
    loaded: list[BaseMigration] = []
    with suppress(ConfigurationError):
        loaded = [one for one in get_loader().migrations.values() if one.backend or one.backend_params]
    used: dict[type[BaseBackend], BaseBackend] = {}
    for migration in (BaseMigration("massmigration", "0000_check"), *loaded):
        with suppress(ConfigurationError):  # other checks report it
            backend = get_backend(migration)
            used.setdefault(type(backend), backend)
    messages: list[checks.CheckMessage] = []
    for backend in used.values():
        messages += [message for message in backend.check() if message not in messages]
    return messages


def _check_labels(modules: dict[str, str | None]) -> None:
    labels = {app_config.label for app_config in apps.get_app_configs()}
    if unknown := sorted(set(modules) - labels):
        raise ConfigurationError(
            f"MASSMIGRATION_MODULES names {join_words(unknown)}, but no installed app has this label. "
            "Correct it, or take it out."
        )
