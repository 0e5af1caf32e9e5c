"""What is kept of an object that its operation cannot handle, and which errors are not its fault."""

from __future__ import annotations

import json
import uuid
from typing import Final

from django.db import connections

from massmigration.databases.redaction import cut, format_traceback, get_message
from massmigration.databases.registry import is_transient
from massmigration.definitions.base import BaseMigration
from massmigration.models import MigrationFailure, MigrationShard

RESTS: Final = 8
"""How often in a row a shard may rest without progress before the error counts as a failure."""


MESSAGE_LIMIT: Final = 2_000
TRACEBACK_LIMIT: Final = 20_000


class SwallowedDatabaseError(Exception):
    """The operation returned although a database error had spoiled the transaction."""


def check_transaction(alias: str) -> None:
    """Raise SwallowedDatabaseError if the operation left the transaction of its batch unusable."""
    connection = connections[alias]
    if connection.in_atomic_block and connection.get_rollback():
        raise SwallowedDatabaseError(
            "the operation caught a database error, which spoils its transaction. Wrap what may fail in "
            "transaction.atomic(using=db_alias) and catch the error around it"
        )


def is_worth_repeating(error: BaseException, migration: BaseMigration) -> bool:
    """Return whether the error is transient, so that the batch is repeated before it counts as a failure."""
    errors = migration.transient_errors
    return is_transient(error) or isinstance(error, errors if isinstance(errors, type) else tuple(errors))


def make_failure(
    shard: MigrationShard, object_key: str | None, object_repr: str, error: BaseException
) -> MigrationFailure:
    """Return the failure of an object, not stored yet; without an encoded key it is the failure of the whole operation.

    Its primary key is made from attempt and object, so that an object that fails twice has one failure. The traceback
    holds no local variables, and nothing that a database adds to its messages.
    """
    # A cursor of a CustomMigration is unique within the author's shard only.
    part = (shard.payload or {}).get("shard")
    identity = uuid.uuid5(shard.attempt_uuid, json.dumps([part, object_key or shard.pk], sort_keys=True))
    return MigrationFailure(
        id=identity.hex,
        attempt_uuid=shard.attempt_uuid,
        key=shard.key,
        shard_id=shard.pk,
        object_key=object_key,
        object_repr=cut(object_repr, 255),
        error_class=f"{type(error).__module__}.{type(error).__qualname__}"[:255],
        message=cut(get_message(error), MESSAGE_LIMIT),
        traceback=cut(format_traceback(error), TRACEBACK_LIMIT),
    )


def get_repr(obj: object) -> str:
    """Return an object as text; its own ``__str__`` may be what is broken."""
    try:
        return str(obj)
    except Exception as error:
        return f"<{type(obj).__name__} whose str() raised {type(error).__name__}>"
