"""What the attributes of a definition may be, as a table; a value that cannot work is refused at the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import ConfigurationError

SMALLEST: Final = {"shard_count": 1, "batch_size": 1, "max_workers": 1, "max_retries": 0}
"""Whole numbers, or None for the default, and the smallest that they may be."""

CHOICES: Final[dict[str, Sequence[str]]] = {"on_error": ("stop", "skip"), "on_conflict": ("revisit", "overwrite")}


def check_attributes(migration: BaseMigration) -> None:
    """Raise ConfigurationError if an attribute has a value that cannot work.

    Args:
        migration: The definition.
    """
    for name, smallest in SMALLEST.items():
        value = getattr(migration, name, None)
        if value is not None and (type(value) is not int or value < smallest):
            raise _refuse(migration, name, value, f"a whole number of at least {smallest}, or None")
    allowed = getattr(migration, "max_failures", None)
    is_share = type(allowed) is float and 0 < allowed < 1
    if allowed is not None and not is_share and (type(allowed) is not int or allowed < 0):
        raise _refuse(
            migration, "max_failures", allowed, "a whole number of at least 0, a share between 0 and 1, or None"
        )
    for name, choices in CHOICES.items():
        value = getattr(migration, name, choices[0])
        if value not in choices:
            raise _refuse(migration, name, value, " or ".join(f"'{choice}'" for choice in choices))


def _refuse(migration: BaseMigration, name: str, value: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} of {migration.key} is {value!r}, but it has to be {wanted}. Correct it.", key=migration.key
    )
