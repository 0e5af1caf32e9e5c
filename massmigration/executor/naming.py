"""Finds the failures that a person names, by their primary keys or by unambiguous prefixes of these."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from massmigration import recorder
from massmigration.databases.registry import get_database
from massmigration.exceptions import AcceptRefused
from massmigration.models import MigrationFailure, MigrationRecord
from massmigration.recorder import FailureFilter
from massmigration.recorder.failures import select_failures

ID_LENGTH: Final = 32
"""Characters of a failure's whole primary key."""


def find_failures(record: MigrationRecord, names: Collection[str], db_alias: str) -> set[str]:
    """Return the primary keys of the failures that are meant, or raise AcceptRefused."""
    whole = {name for name in names if len(name) == ID_LENGTH}
    found: list[MigrationFailure] = []
    has_free_filters = get_database(db_alias).has_free_filters
    if not has_free_filters:
        found = recorder.get_failures(record.attempt_uuid, db_alias)
    elif whole:
        found = recorder.get_failures(record.attempt_uuid, db_alias, FailureFilter(ids=whole), with_tracebacks=False)
    rows = select_failures(record.attempt_uuid, db_alias).defer("traceback")
    for name in set(names) - whole if has_free_filters else ():
        found += rows.filter(pk__startswith=name)[:2]
    return {_find_failure(record, found, name, db_alias).pk for name in names}


def _find_failure(
    record: MigrationRecord, failures: Sequence[MigrationFailure], name: str, db_alias: str
) -> MigrationFailure:
    found = [failure for failure in failures if name and failure.pk.startswith(name)]
    problem = ""
    if not found:
        problem = f"has no failure '{name}' in its attempt on database '{db_alias}'. List them, and name one of those."
    elif len(found) > 1:
        problem = f"has {len(found)} failures that begin with '{name}'. Write more of the one that is meant."
    elif found[0].status != MigrationFailure.OPEN:
        problem = f"has no open failure '{name}': it was {found[0].status} already. Leave it out."
    elif found[0].object_key is None:
        problem = (
            f"failed as a whole, not at an object, so failure '{name}' cannot be accepted. Fix the problem and retry, "
            "or mark the migration as applied."
        )
    if problem:
        raise AcceptRefused(f"{record.key} {problem}", key=record.key, db_alias=db_alias)
    return found[0]
