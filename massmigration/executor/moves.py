"""Makes a person's move: the record and what belongs to it change in one transaction, or the move is refused."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from massmigration import recorder, states
from massmigration.databases.transactions import run_write
from massmigration.exceptions import IllegalMove
from massmigration.models import MigrationRecord
from massmigration.recorder import Author, Seen


@dataclass(frozen=True)
class Move:
    """An action on a record, which is refused if it is not legal, or if another process was faster."""

    action: str  # A name in ``states.MOVES``.
    key: str
    db_alias: str
    author: Author
    seen: Seen | None = None  # What a person has seen of the record; another state is refused.

    def read(self) -> MigrationRecord | None:
        """Return the record, or None if there is none; raise IllegalMove if it is not as a person has seen it."""
        record = recorder.get_record(self.key, self.db_alias)
        recorder.check_seen(record, self.seen, self.key, self.db_alias, self.action)
        return record

    def read_legal(self) -> MigrationRecord:
        """Return the record, or raise IllegalMove if the action is not legal for it."""
        record = self.read()
        if record is None or not states.is_legal(self.action, record.status):
            raise self.refuse(record)
        return record

    def read_moved(self) -> MigrationRecord:
        """Return the record after the move; raise IllegalMove if it was reset in the meantime."""
        record = recorder.get_record(self.key, self.db_alias)
        if record is None:
            raise self.refuse(None)
        return record

    def refuse(self, record: MigrationRecord | None) -> IllegalMove:
        """Return the error that refuses the action in the record's status."""
        status = states.NOT_RUN if record is None else record.status
        return recorder.refuse(self.key, self.db_alias, self.action, status)

    def make(
        self,
        also: Callable[[MigrationRecord], None] | None = None,
        *,
        of_attempt: uuid.UUID | None = None,
        **about: Any,
    ) -> None:
        """Move an existing record, together with what belongs to the move, or raise IllegalMove.

        Args:
            also: Called in the same transaction with the record as it was before.
            of_attempt: The attempt that the record must have; None for any.
            **about: Further arguments of ``recorder.move``.
        """

        def write() -> None:
            record = self.read()
            if record is None:
                raise self.refuse(None)
            self._move(of_attempt or record.attempt_uuid, **about)
            if also is not None:
                also(record)

        run_write(self.db_alias, write)

    def make_or_insert(self, record: MigrationRecord | None, **fields: Any) -> None:
        """Move a record, or insert it with the status that the move leads to; raise IllegalMove if it has changed.

        To be called in a write transaction, with the record as it was read before that, and with fields to set.
        """
        if record is not None:
            self._move(record.attempt_uuid, **fields)
            return
        if not recorder.insert_record(self.key, self.db_alias, status=states.MOVES[self.action].target, **fields):
            raise self.refuse(self.read())
        recorder.add_event(self.key, self.db_alias, self.action, self.author, fields.get("attempt_uuid"))

    def _move(self, of_attempt: uuid.UUID | None, **about: Any) -> None:
        about |= {"of_attempt": of_attempt, "seen": self.seen}
        if not recorder.move(self.key, self.db_alias, self.action, self.author, **about):
            raise self.refuse(self.read())
