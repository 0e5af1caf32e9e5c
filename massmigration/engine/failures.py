"""What happens to an object that its operation cannot handle, and which errors are none of its fault."""

from __future__ import annotations

import json
import traceback
import uuid
from typing import Final

from massmigration.database import is_transient
from massmigration.definitions.base import BaseMigration
from massmigration.models import MigrationFailure, MigrationShard

MESSAGE_LIMIT: Final = 2_000
TRACEBACK_LIMIT: Final = 20_000
CUT_MARK: Final = " … (cut)"


class SwallowedDatabaseError(Exception):
    """The operation returned although a database error had spoiled the transaction."""


def is_passing(error: BaseException, migration: BaseMigration) -> bool:
    """Return whether the error is worth a repetition without counting as a failure."""
    return is_transient(error) or isinstance(error, tuple(migration.transient_errors))


def cut(text: str, limit: int) -> str:
    """Return the text, shortened with a mark if it is longer than ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - len(CUT_MARK)] + CUT_MARK


def describe(error: BaseException) -> str:
    """Return class and message of an error in one line."""
    return cut(f"{type(error).__name__}: {error}".rstrip(": "), MESSAGE_LIMIT)


def make_failure(
    shard: MigrationShard, object_key: str | None, object_repr: str, error: BaseException
) -> MigrationFailure:
    """Return the failure of one object, not stored yet.

    Its primary key is made from attempt and object, so that an object that fails twice has one failure. The traceback
    carries no local variables.

    Args:
        shard: The shard that the object was met in.
        object_key: The object's encoded key or cursor; None if the failure is the whole operation's.
        object_repr: How the object calls itself.
        error: What the operation raised.
    """
    # A cursor of a CustomMigration is unique within the author's shard only.
    part = (shard.payload or {}).get("shard")
    identity = uuid.uuid5(shard.attempt_uuid, json.dumps([part, object_key or shard.pk], sort_keys=True))
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return MigrationFailure(
        id=identity.hex,
        attempt_uuid=shard.attempt_uuid,
        key=shard.key,
        shard_id=shard.pk,
        object_key=object_key,
        object_repr=cut(object_repr, 255),
        error_class=f"{type(error).__module__}.{type(error).__qualname__}"[:255],
        message=cut(str(error), MESSAGE_LIMIT),
        traceback=cut("".join(lines), TRACEBACK_LIMIT),
    )


def get_repr(obj: object) -> str:
    """Return how an object calls itself; its own ``__str__`` may be what is broken."""
    try:
        return str(obj)
    except Exception as error:
        return f"<{type(obj).__name__} whose str() raised {type(error).__name__}>"
