"""What a person has seen of a record before they decided, so that nothing is done to another state."""

from __future__ import annotations

import uuid
from typing import NamedTuple

from massmigration import states, wording
from massmigration.exceptions import IllegalMove
from massmigration.models import MigrationRecord


class Seen(NamedTuple):
    """What a person has seen of a record before they decided.

    Attributes:
        attempt_uuid: The record's attempt; None if it had none, or there was no record.
        status: Its status; empty if it does not matter, as for a pause.
    """

    attempt_uuid: uuid.UUID | None
    status: str = ""

    def is_still_so(self, record: MigrationRecord | None) -> bool:
        """Return whether the record is as it was seen."""
        if record is None:
            return self.attempt_uuid is None and self.status in ("", states.NOT_RUN)
        return record.attempt_uuid == self.attempt_uuid and self.status in ("", record.status)


def check_seen(record: MigrationRecord | None, seen: Seen | None, key: str, db_alias: str, action: str) -> None:
    """Raise IllegalMove if a record is no longer as a person has seen it."""
    if seen is None or seen.is_still_so(record):
        return
    status = record.status if record is not None else states.NOT_RUN
    is_same_attempt = record is None or seen.attempt_uuid in (None, record.attempt_uuid)
    sentence = wording.get_stale_refusal(key, db_alias, status, is_same_attempt=is_same_attempt)
    raise IllegalMove(sentence, key=key, db_alias=db_alias, status=status, action=action)
