"""Objects that a person has taken as they are: the engine skips them, and does not wait for them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

from massmigration import wording
from massmigration.databases.tables import Table
from massmigration.models import MigrationFailure
from massmigration.recorder.failures import ACCEPTED, count_by_status, is_accepted, iterate_failures

KEYS_AT_ONCE: Final = 1_000


def stays_accepted(failure: MigrationFailure, db_alias: str) -> bool:
    """Return whether an object that failed was accepted in an earlier pass over the table; its status is kept then."""
    if not is_accepted(failure, db_alias):
        return False
    failure.status = MigrationFailure.ACCEPTED
    return True


def count_accepted(table: Table, attempt_uuid: uuid.UUID, db_alias: str) -> int:
    """Return how many accepted rows the queryset still finds: another pass would not change them."""
    count, keys = 0, []
    for failure in iterate_failures(attempt_uuid, db_alias, ACCEPTED):
        if failure.object_key is not None:
            keys.append(table.codec.decode(failure.object_key))
        if len(keys) >= KEYS_AT_ONCE:
            count += _count_listed(table, keys)
            keys = []
    return count + _count_listed(table, keys)


def _count_listed(table: Table, keys: Sequence[Any]) -> int:
    size = table.database.listed_keys_limit or max(len(keys), 1)
    chunks = (
        chunk
        for start in range(0, len(keys), size)
        for chunk in table.database.chunk_keys(table.queryset.model, keys[start : start + size])
    )
    return sum(len(table.read_listed(list(chunk))) for chunk in chunks)


def describe_accepted(attempt_uuid: uuid.UUID, db_alias: str) -> str:
    """Return the sentence that a run which is applied says of the objects that were accepted, if there are any."""
    count = count_by_status(attempt_uuid, db_alias, MigrationFailure.ACCEPTED)
    if not count:
        return ""
    return f"{wording.count(count, 'objects')} {wording.was(count)} accepted after an error, unmigrated."
