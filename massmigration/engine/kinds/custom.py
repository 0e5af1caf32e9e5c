"""The kind that goes through items, which the author's generator yields."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from massmigration.databases.counting import Count
from massmigration.definitions.custom import CustomMigration
from massmigration.engine.failures import RESTS
from massmigration.engine.kinds.base import WORKED_METHODS, Kind
from massmigration.engine.kinds.processor import Batch, Processor
from massmigration.engine.leaving import CountedRest, Rest
from massmigration.engine.methods import Method, call, check_shards, check_total
from massmigration.engine.pacing import Pacer
from massmigration.engine.sharding import Plan
from massmigration.exceptions import InvalidDefinition, RetryLater
from massmigration.models import MigrationShard
from massmigration.recorder import Part


class CustomProcessor(Processor):
    """Items of anything, pulled from the author's generator before the transaction begins."""

    migration: CustomMigration

    def __post_init__(self) -> None:
        super().__post_init__()
        self._source: Iterator[tuple[Any, Any]] | None = None
        self._items: Iterator[tuple[str, Any]] | None = None
        self._pulled: list[tuple[str, Any]] = []

    def fetch(self, shard: MigrationShard, pacer: Pacer, limit: int, *, lock: bool = False) -> Batch:
        """Pull the next items from the author's generator, which is kept open between batches."""
        if self._items is None:
            self._items = self._get_items(shard)
        rest: RetryLater | Rest | None = None
        while len(self._pulled) < limit:
            try:
                self._pulled.append(next(self._items))
            except StopIteration:
                break
            except (RetryLater, Rest) as error:
                self._items = None  # what was pulled before is worked first
                if not self._pulled:
                    raise
                rest = error
                break
        pulled = self._pulled[:limit]
        return Batch(
            [item for _, item in pulled],
            pulled[-1][0] if pulled else None,
            lambda index: pulled[index][0],
            rest=rest,
        )

    def _get_items(self, shard: MigrationShard) -> Iterator[tuple[str, Any]]:
        cursor = None if shard.cursor is None else json.loads(shard.cursor)
        payload = shard.payload or {}
        part = copy.deepcopy(payload.get("shard"))  # the author's code may change it, and is given it again
        self._source = iter(self.migration.get_items(part, cursor, self.db_alias))
        items = _check_cursors(self._source, shard)
        if "keys" not in payload:
            return items
        wanted = set(payload["keys"])
        return ((at, item) for at, item in items if at in wanted)

    def operate(self, batch: Batch) -> None:
        """Call the operation for each item, or once if the author wrote ``operation_many``."""
        if type(self.migration).operation_many is not CustomMigration.operation_many:
            call(self.migration, "operation_many", list(batch.objects), self.db_alias)  # a copy, which may be emptied
            return
        batch.worked = 0
        for number, item in enumerate(batch.objects, start=1):
            call(self.migration, "operation", item, self.db_alias)
            batch.worked = number
            if number < len(batch.objects) and self.should_stop():
                batch.cut(number)
                return

    def learn_commit(self, batch: Batch) -> None:
        """Drop the items that are done."""
        del self._pulled[: len(batch.objects)]

    def learn_error(self) -> None:
        """Begin the generator again after the cursor: its items may have been changed."""
        self._pulled.clear()
        with suppress(Exception):
            getattr(self._source, "close", lambda: None)()
        self._source = self._items = None


class CustomKind(Kind):
    """Items of anything, in the shards that ``get_shards()`` returns."""

    definition = CustomMigration
    processor = CustomProcessor
    methods = (
        *WORKED_METHODS,
        Method("get_shards", (("db_alias",),), may_yield=True),
        Method("get_items", (("shard", "cursor", "db_alias"),), may_yield=True),
        Method("get_total", (("shard", "db_alias"),)),
        Method("operation", (("item", "db_alias"),)),
        Method("operation_many", (("items", "db_alias"),)),
    )
    unit = "items"
    works_in = "in get_items()"

    def plan(self, db_alias: str) -> Plan:
        """Return one part for each of the author's shards."""
        parts = []
        for shard in check_shards(self.migration.get_shards(db_alias), self.migration):
            text = json.dumps(shard)  # refuses what cannot be stored, before anything is
            total = check_total(self.migration.get_total(json.loads(text), db_alias), self.migration)
            parts.append(Part(payload={"shard": json.loads(text)}, total=total))
        totals = [part.total for part in parts]
        total = None if None in totals else sum(total for total in totals if total is not None)
        return Plan(parts, Count(total, is_estimate=False))

    def describe_nothing(self, ranges: Sequence[MigrationShard], db_alias: str) -> str:
        """Return a warning that names the method that returned nothing."""
        if not ranges:
            return "Nothing was done: get_shards() returned none."
        return "Nothing was done: get_items() yielded nothing. If it should have, look at it."


def _check_cursors(items: Iterator[tuple[Any, Any]], shard: MigrationShard) -> Iterator[tuple[str, Any]]:
    """Yield items with their encoded cursors, each once its successor is known to have another cursor.

    After a restart the author's generator begins after the cursor. Items that share the cursor of one that is done,
    such as the rest of a page, would never be seen, so InvalidDefinition is raised.
    """
    last, waiting = shard.cursor, None
    while True:
        try:
            value, item = next(items)
        except StopIteration:
            break
        except RetryLater as rest:
            if waiting is not None:
                raise _hold_back(shard, rest) from rest
            raise
        cursor = json.dumps(value)
        if value is None or cursor == last:
            raise InvalidDefinition(
                f"An item of {shard.key} does not move the cursor {last if value is not None else value}, so a restart "
                "would skip items, or repeat them. Let get_items() yield a cursor that no other item of the shard has, "
                "and begin after the one given.",
                key=shard.key,
            )
        if waiting is not None:
            yield waiting
        last, waiting = cursor, (cursor, item)
    if waiting is not None:
        yield waiting


def _hold_back(shard: MigrationShard, rest: RetryLater) -> Exception:
    """Return what to raise where the last item before a rest is kept for the next visit: its successor is unknown."""
    if shard.retries < RESTS:
        return CountedRest(rest.seconds, str(rest))
    return InvalidDefinition(
        f"get_items() of {shard.key} asked for a rest after a single item {RESTS + 1} times in a row. An item is "
        "worked once the cursor of the next one is known, so this never ends. Let get_items() yield at least two items "
        "before it raises RetryLater, or raise it in the operation.",
        key=shard.key,
    )
