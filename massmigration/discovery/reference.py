"""Reads a reference to a migration, and says what could have been meant by a wrong one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import SequenceMatcher
from typing import Final

from django.apps import apps

from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import AmbiguousName, MigrationNotFound

Reference = str | tuple[str, str] | BaseMigration
"""How a migration may be named: ``"places:0002_slugs"``, ``("places", "0002_slugs")``, or by itself."""

SIMILARITY: Final = 0.75
"""How much of a wrong label or name has to be right, from 0 to 1 as ``difflib`` measures it."""


def parse(reference: object) -> str | None:
    """Return the key that a reference stands for, whether there is such a migration or not; None if it is none."""
    if isinstance(reference, BaseMigration):
        return reference.key
    parts = reference.split(":") if isinstance(reference, str) else reference
    if not isinstance(parts, (tuple, list)) or len(parts) != 2:
        return None
    app_label, name = parts
    if not isinstance(app_label, str) or not isinstance(name, str) or not app_label or not name:
        return None
    return f"{app_label}:{name}"


def find(app_label: str, prefix: str, files: Collection[str], records: Collection[str] = ()) -> str:
    """Return the key of an app's only migration whose name is, or begins with, ``prefix``.

    It is looked for among the keys of files, then among those of records, which may have lost their files.

    Raises:
        MigrationNotFound: None does.
        AmbiguousName: More than one does, and none is exactly that.
    """
    wanted = f"{app_label}:{prefix}"
    if wanted in files or wanted in records:
        return wanted
    found = [key for key in files if key.startswith(wanted)] or sorted(key for key in records if key.startswith(wanted))
    if not found:
        fact = f"{app_label} has no migration that begins with {prefix!r}."
        raise MigrationNotFound(f"{fact} {suggest(wanted, files)}", key=wanted)
    if len(found) > 1:
        raise AmbiguousName(
            f"{prefix!r} begins the names of {len(found)} migrations of {app_label}: "
            f"{join_words(_get_name(key) for key in found)}. Write more of the name.",
            key=wanted,
        )
    return found[0]


def make_not_found(reference: object, files: Collection[str]) -> MigrationNotFound:
    """Return the error for a reference to a migration that does not exist; ``files`` has the keys of all files."""
    key = parse(reference)
    if key is not None:
        return MigrationNotFound(f"There is no migration {key}. {suggest(key, files)}", key=key)
    meant = _find_similar(reference, files) if isinstance(reference, str) else []
    hint = _ask(meant) if meant else "Write it as 'app_label:0001_name' or as a pair."
    return MigrationNotFound(f"{reference!r} does not name a migration. {hint}")


def suggest(key: str, files: Collection[str]) -> str:
    """Return a sentence with the migrations that could have been meant by a key that does not exist."""
    if meant := _find_similar(key, files):
        return _ask(meant)
    app_label = key.partition(":")[0]
    if app_label not in {app_config.label for app_config in apps.get_app_configs()}:
        return f"No installed app has the label {app_label!r}: look at INSTALLED_APPS."
    names = [_get_name(each) for each in files if each.startswith(f"{app_label}:")]
    if not names:
        return f"{app_label} has no mass migrations: make one with makemassmigration."
    return f"{app_label} has {join_words(names[-5:])}{' as its latest' if len(names) > 5 else ''}."


def _find_similar(text: str, files: Collection[str]) -> list[str]:
    """Return at most three keys: those that begin like ``text``, or else look like it; any separator will do."""
    wanted = text if ":" in text else re.sub(r"[./\s]+", ":", text.strip(), count=1)
    app_label, _, name = wanted.rpartition(":")
    if not name:
        return []
    beginning = [key for key in files if key.startswith(wanted if app_label else f"{_get_label(key)}:{name}")]
    return (beginning or [key for key in files if app_label and _is_like(key, app_label, name)])[:3]


def _is_like(key: str, app_label: str, name: str) -> bool:
    pairs = (_get_label(key), app_label), (_get_name(key), name)
    return all(SequenceMatcher(None, *pair).ratio() >= SIMILARITY for pair in pairs)


def _ask(keys: list[str]) -> str:
    return f"Did you mean {join_words(keys, 'or')}?"


def join_words(words: Iterable[str], conjunction: str = "and") -> str:
    """Return ``"a, b and c"``."""
    *first, last = words
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def _get_label(key: str) -> str:
    return key.partition(":")[0]


def _get_name(key: str) -> str:
    return key.partition(":")[2]
