"""What ``manage.py check`` says about the classes that authors write: their attributes and methods."""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from massmigration.definitions.base import BaseMigration
from massmigration.discovery.loader import MigrationLoader
from massmigration.discovery.reference import join_words
from massmigration.engine.attributes import find_attribute_faults
from massmigration.engine.kinds import KINDS, get_kind

_DEFINITIONS: Final = tuple(kind.definition for kind in KINDS)
UNTIL_THEN: Final = "Until then it cannot be run; other migrations are not affected."

LIKENESS: Final = 0.8
"""How alike two names have to be, from 0 to 1, for one to count as a misspelling of the other."""


class Fault(NamedTuple):
    """One problem that a check found, such as the error ``E001``; its place is a file, or the label of an app."""

    id: str
    app_label: str
    place: Path | str
    text: str
    hint: str


def make_fault(identifier: str, loader: MigrationLoader, key: str, text: str, hint: str) -> Fault:
    """Return a problem of a migration's file."""
    file = loader.files[key]
    return Fault(identifier, file.app_label, file.path, text, hint)


def check_attribute_values(loader: MigrationLoader) -> Iterator[Fault]:
    """Find attributes with values that cannot work."""
    for key, migration in loader.migrations.items():
        for name, sentence in find_attribute_faults(migration):
            if name != "allowed_db_aliases":  # which has its own check
                yield make_fault("E013", loader, key, sentence, UNTIL_THEN)


def check_methods(loader: MigrationLoader) -> Iterator[Fault]:
    """Find methods that would be called without effect."""
    for key, migration in loader.migrations.items():
        for sentence in get_kind(migration).find_method_faults():
            yield make_fault("E014", loader, key, sentence, UNTIL_THEN)


def check_shared_values(loader: MigrationLoader) -> Iterator[Fault]:
    """Find lists, dictionaries and sets that all threads of a process share."""
    for key, migration in loader.migrations.items():
        declared = _get_names(*_DEFINITIONS)
        for name, value in _get_own(migration).items():
            if name in declared or name.isupper() or not isinstance(value, list | dict | set | bytearray | deque):
                continue
            if _find_meant(migration, name):  # W010 says what is wrong with it
                continue
            text = f"{key} has a {type(value).__name__} in its class, {name}, which all threads of a process share."
            hint = (
                f"If it is filled at run time, make it in prepare() or __init__(), as self.{name} = …. If it is a "
                "constant, write its name in capitals, or make it a tuple or a frozenset."
            )
            yield make_fault("W009", loader, key, text, hint)


def check_names(loader: MigrationLoader) -> Iterator[Fault]:
    """Find attributes and methods that are misspelt, or that mean something for other migrations only."""
    for key, migration in loader.migrations.items():
        kind = get_kind(migration).definition
        known, elsewhere = _get_names(kind), _get_names(*_DEFINITIONS)
        for name in _get_own(migration):
            if name in known:
                continue
            if name in elsewhere and name not in vars(type(migration)):  # a mixin may be for several kinds
                continue
            if name in elsewhere:
                owners = join_words(other.__name__ for other in _DEFINITIONS if name in _get_names(other))
                text = f"{key} has {name}, which means nothing for a {kind.__name__}."
                yield make_fault("W011", loader, key, text, f"It belongs to {owners}. Take it out.")
            elif meant := _find_meant(migration, name):
                text = f"{key} has {name}, which means nothing to massmigration."
                hint = f"Did you mean {meant}? If it is your own attribute, give it another name."
                yield make_fault("W010", loader, key, text, hint)


def _find_meant(migration: BaseMigration, name: str) -> str:
    """Return the attribute that a name may be a misspelling of, if any: not one that stands beside it in its class."""
    owner = next(definition for definition in type(migration).__mro__ if name in vars(definition))
    candidates = _get_names(get_kind(migration).definition) - vars(owner).keys()
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=LIKENESS)
    return close[0] if close else ""


def _get_names(*kinds: type[BaseMigration]) -> set[str]:
    return {name for kind in kinds for name in dir(kind) if not name.startswith("_")}


def _get_own(migration: BaseMigration) -> dict[str, Any]:
    """Return what the author's classes declare in public, the class of the file before those that it inherits from."""
    found: dict[str, Any] = {}
    for definition in type(migration).__mro__:
        if definition is object or any(definition in kind.__mro__ for kind in _DEFINITIONS):
            continue
        for name, value in vars(definition).items():
            if not name.startswith("_"):
                found.setdefault(name, value)
    return found
