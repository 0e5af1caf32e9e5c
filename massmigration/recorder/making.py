"""Makes shards: those of a plan, of a pass, of a retry, the last one, and halves of others."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from massmigration.databases.registry import get_database
from massmigration.exceptions import InvalidDefinition
from massmigration.models import MigrationAttempt, MigrationShard
from massmigration.recorder.shards import get_shard, select_shards


class Part(NamedTuple):
    """What a new shard is about: a range of encoded keys, or a shard of the author's.

    Attributes:
        lower: The key before its first; None for the first range.
        upper: Its last key; None for the last range.
        payload: The author's shard, or the keys that it lists.
        total: How many objects it holds, if that is known.
        extension: How far the last, open range goes for now.
    """

    lower: str | None = None
    upper: str | None = None
    payload: Any = None
    total: int | None = None
    extension: Any = None


class ShardMaker:
    """Makes the shards of one database."""

    def __init__(self, db_alias: str) -> None:
        self.db_alias = db_alias
        self.database = get_database(db_alias)

    def add_plan(self, attempt: MigrationAttempt) -> None:
        """Store the shard in which an attempt is planned."""
        plan = _make_shard(attempt.uuid, attempt.key, MigrationShard.PLAN)
        plan.save(using=self.db_alias, force_insert=True)

    def add_ranges(self, attempt_uuid: uuid.UUID, key: str, parts: Sequence[Part], pass_number: int = 1) -> None:
        """Store the shards of a pass; planning the same pass twice stores them once."""
        shards = [
            _make_shard(attempt_uuid, key, MigrationShard.RANGE, pass_number, number, **part._asdict())
            for number, part in enumerate(parts)
        ]
        self.add_shards(shards)

    def add_lists(
        self, attempt_uuid: uuid.UUID, key: str, payloads: Iterable[Any], pass_number: int, first_number: int
    ) -> None:
        """Store range shards that list the keys of their objects, beside those of the pass."""
        shards = []
        for number, payload in enumerate(payloads, start=first_number):
            shard = _make_shard(attempt_uuid, key, MigrationShard.RANGE, pass_number, number, payload=payload)
            shard.pk = f"{attempt_uuid.hex}-retry-{uuid.uuid4().hex[:12]}"  # a split in flight may take the number
            shards.append(shard)
        self.add_shards(shards)

    def add_finish(self, attempt_uuid: uuid.UUID, key: str, pass_number: int) -> None:
        """Store the shard that ends a pass, once."""
        self.add_shards([_make_shard(attempt_uuid, key, MigrationShard.FINISH, pass_number)])

    def add_shards(self, new: Sequence[MigrationShard]) -> None:
        """Store new shards; those that are stored already are left as they are.

        Raises:
            InvalidDefinition: They are more than one transaction can write.
        """
        if self.database.write_limit is not None and len(new) > self.database.write_limit:
            raise InvalidDefinition(
                f"{new[0].key} has {len(new)} shards, but on database '{self.db_alias}' one transaction can write at "
                f"most {self.database.write_limit}. Make fewer and larger ones.",
                key=new[0].key,
                db_alias=self.db_alias,
            )
        self.database.insert_missing(new)

    def split_shard(self, shard: MigrationShard, middle: str, number: int) -> MigrationShard | None:
        """Cut a shard in two at ``middle``: it keeps the lower part, a new one gets the upper part.

        Args:
            shard: As it was read; if its worker moved on meanwhile, nothing is done.
            middle: The encoded key that becomes the upper bound of the lower part.
            number: Number of the new shard, not used yet in its pass.

        Returns:
            The new shard, or None. To be called in a write transaction.
        """
        unmoved = {"fence": shard.fence, "cursor": shard.cursor, "upper": shard.upper, "status": shard.status}
        part = Part(middle, shard.upper, extension=shard.extension)
        new = _make_shard(shard.attempt_uuid, shard.key, shard.kind, shard.pass_number, number, **part._asdict())
        new.batch_size = shard.batch_size
        if get_shard(new.pk, self.db_alias) is not None:
            return None
        if not self.database.update_if(select_shards([shard.pk], self.db_alias), unmoved, {"upper": middle}):
            return None
        new.save(using=self.db_alias, force_insert=True)
        return new


def _make_shard(
    attempt_uuid: uuid.UUID, key: str, kind: str, pass_number: int = 1, number: int = 0, **fields: Any
) -> MigrationShard:
    return MigrationShard(
        id=MigrationShard.make_id(attempt_uuid, kind, pass_number, number),
        attempt_uuid=attempt_uuid,
        key=key,
        kind=kind,
        pass_number=pass_number,
        number=number,
        **fields,
    )
