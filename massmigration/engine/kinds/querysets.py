"""The kinds that go through a queryset, in ranges of keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from massmigration.databases.counting import COUNT_SECONDS, Count
from massmigration.databases.keyfilters import get_key_fields
from massmigration.databases.registry import get_database
from massmigration.databases.tables import Table
from massmigration.definitions.base import QuerysetMigration
from massmigration.definitions.batch import BatchMigration
from massmigration.definitions.mapper import MapperMigration
from massmigration.engine import passes
from massmigration.engine.kinds.base import WORKED_METHODS, Kind
from massmigration.engine.kinds.rows import BatchProcessor, MapperProcessor, QuerysetProcessor
from massmigration.engine.methods import Method
from massmigration.engine.sharding import Plan, plan_pass, split_largest
from massmigration.engine.tables import get_table, is_until_empty
from massmigration.models import MigrationShard
from massmigration.recorder import Part

QUERYSET_METHODS = (*WORKED_METHODS, Method("get_queryset", (("db_alias",),)))


class QuerysetKind(Kind):
    """Rows, in the order of their keys."""

    migration: QuerysetMigration
    processor: ClassVar[type[QuerysetProcessor]]
    unit = "rows"
    finds_by_key = True
    works_in = "in get_queryset(), or while reading keys"

    def check(self, db_alias: str) -> None:
        """Check the queryset, its key and the fields that are written; reads a key at most."""
        self.processor(self.migration, db_alias).table.check_readable(self.migration.key)

    def get_purpose(self, db_alias: str) -> dict[str, Any]:
        """Name the model and its key, too: bounds and cursors only fit these."""
        table = self._get_table(db_alias)
        model = table.codec.model._meta.concrete_model or table.codec.model
        columns = zip(get_key_fields(model), table.codec.types, strict=True)
        return {
            **super().get_purpose(db_alias),
            "model": model._meta.label,
            "key": ", ".join(f"{field.name} ({key_type.name})" for field, key_type in columns),
            "other_database": self.migration.other_database,
        }

    def plan(self, db_alias: str) -> Plan:
        """Return ranges of keys, and how many rows the queryset finds."""
        table = self._get_table(db_alias)
        count = table.database.count(table.queryset)
        return Plan(plan_pass(self.migration, table), count)

    def count_objects(self, db_alias: str, seconds: float = COUNT_SECONDS) -> Count | None:
        """Count what the queryset finds."""
        table = self._get_table(db_alias)
        return table.database.count(table.queryset, seconds)

    def can_split(self, db_alias: str) -> bool:
        """Return whether a range can be cut while it is worked: not if its batch may be saved already."""
        if self.migration.serial or not self.migration.atomic or self.migration.other_database:
            return False
        return self.knows_changed or get_database(db_alias).can_operate_in_transaction

    def split_largest(self, shards: Sequence[MigrationShard], db_alias: str) -> MigrationShard | None:
        """Cut the largest range, where the commit of the batch that is worked there can be refused."""
        return split_largest(self._get_table(db_alias), shards) if self.can_split(db_alias) else None

    def is_until_empty(self, db_alias: str) -> bool:
        """Return what the author says, or else whether the queryset filters on a field that is written."""
        return is_until_empty(self.migration, self._get_table(db_alias))

    def find_next_pass(
        self, shard: MigrationShard, ranges: Sequence[MigrationShard], db_alias: str
    ) -> tuple[list[Part], str]:
        """Look whether the queryset still finds rows."""
        return passes.find_next_pass(self.migration, self._get_table(db_alias), shard, ranges, db_alias)

    def describe_nothing(self, ranges: Sequence[MigrationShard], db_alias: str) -> str:
        """Return a warning unless the whole table is empty, as on every new database."""
        table = self._get_table(db_alias)
        if not table.keys.exists():
            return ""
        model = table.queryset.model._meta.label
        return f"Nothing was done: no row of {model} matched. If there should have been some, look at get_queryset()."

    def get_cursor_after(self, object_key: str, shard: MigrationShard) -> str:
        """Return the key, or its number in a shard that lists its rows."""
        return object_key if shard.payload is None else str(shard.payload["keys"].index(object_key) + 1)

    def _get_table(self, db_alias: str) -> Table:
        return get_table(self.migration, db_alias)


class MapperKind(QuerysetKind):
    """One call for each object."""

    definition = MapperMigration
    migration: MapperMigration
    processor = MapperProcessor
    methods = (
        *QUERYSET_METHODS,
        Method("prepare", (("objects", "db_alias"),)),
        Method("operation", (("obj", "db_alias"),)),
    )

    @property
    def knows_changed(self) -> bool:
        """Whether the engine writes, and so compares."""
        return bool(self.migration.update_fields)


class BatchKind(QuerysetKind):
    """One call with some thousand rows as a queryset."""

    definition = BatchMigration
    processor = BatchProcessor
    methods = (*QUERYSET_METHODS, Method("operation", (("queryset", "db_alias"),)))
