"""What the attributes of a definition may be, as a table; a value that cannot work is refused before the start."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from django.utils.functional import Promise

from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import ConfigurationError

SMALLEST: Final = {"shard_count": 1, "batch_size": 1, "max_workers": 1, "max_retries": 0}
"""Whole numbers, or None for the default, and the smallest that they may be."""

CHOICES: Final[dict[str, Sequence[str]]] = {"on_error": ("stop", "skip"), "on_conflict": ("revisit", "overwrite")}


class Rule(NamedTuple):
    """What one attribute may be: whether a value can work, and what is wanted, for the sentence."""

    is_met: Callable[[Any], bool]
    wanted: str


def is_list_of(is_one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return whether something is a list, tuple or set of what ``is_one`` accepts; a string is none."""
    return lambda value: _is_list(value) and all(map(is_one, value))


def _is_list(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def _is_count(smallest: int) -> Callable[[Any], bool]:
    return lambda value: value is None or (type(value) is int and value >= smallest)


def _is_bound(value: Any) -> bool:
    return (type(value) is float and 0 < value < 1) or _is_count(0)(value)


_FLAG: Final = Rule(lambda value: isinstance(value, bool), "True or False")
_NAME: Final = Rule(lambda value: value is None or _is_name(value), "a string, or None")

RULES: Final[Mapping[str, Rule]] = {
    **{
        name: Rule(_is_count(smallest), f"a whole number of at least {smallest}, or None")
        for name, smallest in SMALLEST.items()
    },
    "max_failures": Rule(_is_bound, "a whole number of at least 0, a share between 0 and 1, or None"),
    **{
        name: Rule(lambda value, choices=choices: value in choices, " or ".join(f"'{choice}'" for choice in choices))  # type: ignore[misc]
        for name, choices in CHOICES.items()
    },
    "schema_dependencies": Rule(
        is_list_of(lambda pair: isinstance(pair, tuple | list) and len(pair) == 2 and all(map(_is_name, pair))),
        'a list of pairs, such as [("app_label", "0001_initial")]',
    ),
    "allowed_db_aliases": Rule(
        lambda value: value is None or is_list_of(_is_name)(value), "a list of aliases, or None"
    ),
    "transient_errors": Rule(
        lambda value: _is_error(value) or is_list_of(_is_error)(value),
        "a class of exceptions, or a tuple of such classes",
    ),
    "update_fields": Rule(is_list_of(_is_name), 'a list of names of fields, such as ["slug"]'),
    **dict.fromkeys(("backend", "queue_name", "other_database"), _NAME),
    "backend_params": Rule(lambda value: isinstance(value, Mapping), "a dictionary"),
    "operator_notes": Rule(lambda value: isinstance(value, str | Promise), "a string"),
    **dict.fromkeys(("serial", "destructive", "atomic", "bounded", "lock_rows", "write_unchanged"), _FLAG),
    "until_empty": Rule(lambda value: value is None or isinstance(value, bool), "True, False or None"),
}
"""Per attribute what it may be. ``dependencies`` is missing: with a wrong one the file cannot even be loaded."""


def find_attribute_faults(migration: BaseMigration) -> Iterator[tuple[str, str]]:
    """Yield the name of each attribute that cannot work, and a sentence."""
    for name, rule in RULES.items():
        if hasattr(migration, name) and not rule.is_met(value := getattr(migration, name)):
            yield name, f"{name} of {migration.key} is {value!r}, but it has to be {rule.wanted}. Correct it."


def check_attributes(migration: BaseMigration) -> None:
    """Raise ConfigurationError if an attribute has a value that cannot work."""
    for _, sentence in find_attribute_faults(migration):
        raise ConfigurationError(sentence, key=migration.key)
