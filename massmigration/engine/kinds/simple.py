"""The kinds that are one call: of ``operation()`` in one transaction, or of ``launch()``, which does all the work."""

from __future__ import annotations

import json

from massmigration.databases.counting import Count
from massmigration.definitions.base import BaseMigration
from massmigration.definitions.simple import SimpleMigration
from massmigration.engine.kinds.base import COMMON_METHODS, WORKED_METHODS, Kind
from massmigration.engine.kinds.processor import Batch, Processor
from massmigration.engine.methods import Method, call
from massmigration.engine.pacing import Pacer
from massmigration.engine.sharding import Plan
from massmigration.models import MigrationShard
from massmigration.recorder import Part


class SimpleProcessor(Processor):
    """One call, one transaction, one object: the whole operation."""

    isolates = False

    def limit_writing(self) -> None:
        """Make the single call without a gap after it."""
        super().limit_writing()
        self.gap_seconds = 0.0

    def fetch(self, shard: MigrationShard, pacer: Pacer, limit: int, *, lock: bool = False) -> Batch:
        """Return the single call, until the cursor says that it is done."""
        if shard.cursor is not None:
            return Batch([], None, json.dumps)
        return Batch([self.migration], json.dumps(1), lambda index: json.dumps("operation"))

    def operate(self, batch: Batch) -> None:
        """Call the operation."""
        call(self.migration, "operation", self.db_alias)


class SimpleKind(Kind):
    """One call, which counts as one object."""

    definition = SimpleMigration
    processor = SimpleProcessor
    methods = (*WORKED_METHODS, Method("operation", (("db_alias",),)))
    has_objects = False

    def plan(self, db_alias: str) -> Plan:
        """Return the single part."""
        return Plan([Part(total=1)], Count(1, is_estimate=False))


class LaunchKind(Kind):
    """One call of ``launch()``, in the shard that plans."""

    definition = BaseMigration
    methods = COMMON_METHODS
    is_launched = True
    has_objects = False
    plans_in = "in launch()"
