"""What ``manage.py check`` says about the backends that migrations run on; each of them says it itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.apps import AppConfig
from django.core import checks

from massmigration.backends.base import BaseBackend, get_backend
from massmigration.definitions.base import BaseMigration
from massmigration.discovery.loader import get_loader
from massmigration.exceptions import ConfigurationError


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
