"""What is true of a migration because of the class that its author subclassed; processors do the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from massmigration.databases.counting import COUNT_SECONDS, Count
from massmigration.definitions.base import BaseMigration
from massmigration.engine.attributes import check_attributes
from massmigration.engine.kinds.processor import Processor
from massmigration.engine.methods import Method, find_fault
from massmigration.engine.sharding import Plan
from massmigration.exceptions import InvalidDefinition
from massmigration.models import MigrationShard
from massmigration.recorder import Part

COMMON_METHODS = (
    Method("launch", (("db_alias",),)),
    Method("before_start", (("db_alias",),)),
    Method("has_run_permission", (("user",), ("user", "action", "db_alias"))),
)
WORKED_METHODS = (*COMMON_METHODS, Method("verify", (("db_alias",),)))


class Kind:
    """The answers that differ from kind to kind; the defaults fit a kind that does not go through a queryset."""

    definition: ClassVar[type[BaseMigration]]  # The class that authors subclass.
    processor: ClassVar[type[Processor]]  # What works the batches; a kind that is launched has none.
    methods: ClassVar[tuple[Method, ...]] = WORKED_METHODS  # Those that authors may write.
    unit: ClassVar[str] = ""  # What is counted: "rows", "items", or nothing if the work is one single step.
    is_launched: ClassVar[bool] = False  # Does the author's launch() do all the work, so that nothing is planned?
    has_objects: ClassVar[bool] = True  # Are there objects, one of which may fail while the others are done?
    finds_by_key: ClassVar[bool] = False  # Is an object found by its key alone, without the payload of its shard?
    plans_in: ClassVar[str] = "while planning"  # Where is the author's code when it plans? For a sentence.
    works_in: ClassVar[str] = "in operation()"  # Where is it before an object can be named? For a sentence.

    migration: Any

    def __init__(self, migration: BaseMigration) -> None:
        self.migration = migration

    @property
    def knows_changed(self) -> bool:
        """Whether the engine knows which objects were changed."""
        return False

    def check(self, db_alias: str) -> None:
        """Raise InvalidDefinition or ConfigurationError if the migration cannot be worked on this database."""

    def find_method_faults(self) -> Iterator[str]:
        """Yield a sentence for each method of the author that cannot do its work."""
        for method in self.methods:
            fault = find_fault(getattr(self.migration, method.name, None), method)
            if fault:
                yield f"{method.name}() of {self.migration.key} {fault}"

    def check_declarations(self) -> None:
        """Raise ConfigurationError or InvalidDefinition if an attribute or a method cannot work; asks no database."""
        check_attributes(self.migration)
        for sentence in self.find_method_faults():
            raise InvalidDefinition(sentence, key=self.migration.key)

    def get_purpose(self, db_alias: str) -> dict[str, Any]:
        """Return what shards are planned for, as JSON values; ``get_queryset()`` is called, but nothing is read.

        Returns:
            ``kind``, the class that the author subclassed; for those that go through a queryset also ``model``,
            ``key`` (each field of the primary key with its type) and ``other_database``.
        """
        return {"kind": self.definition.__name__}

    def plan(self, db_alias: str) -> Plan:
        """Return the parts that the work is split into."""
        raise NotImplementedError

    def make_processor(self, db_alias: str, should_stop: Callable[[], bool] = lambda: False) -> Processor:
        """Return what works the batches of a shard."""
        return self.processor(self.migration, db_alias, should_stop)

    def count_objects(self, db_alias: str, seconds: float = COUNT_SECONDS) -> Count | None:
        """Return how many objects there are to visit, an estimate if that takes too long; None if it is not known."""
        return None

    def split_largest(self, shards: Sequence[MigrationShard], db_alias: str) -> MigrationShard | None:
        """Cut the largest range that a worker is working on in two; return the new shard, None if none is worth it."""
        return None

    def is_until_empty(self, db_alias: str) -> bool:
        """Return whether another pass looks for what was added after the cursors had passed."""
        return False

    def find_next_pass(
        self, shard: MigrationShard, ranges: Sequence[MigrationShard], db_alias: str
    ) -> tuple[list[Part], str]:
        """Return the parts of another pass, or none and a warning if something is left that no pass would take.

        Raise FinishRefused if there were too many passes. ``shard`` is the finish shard of the last one, ``ranges``
        are the shards of all passes.
        """
        return [], ""

    def describe_nothing(self, ranges: Sequence[MigrationShard], db_alias: str) -> str:
        """Return the warning of an attempt that visited nothing, perhaps because of a typo; empty if that is normal."""
        return ""

    def get_cursor_after(self, object_key: str, shard: MigrationShard) -> str:
        """Return where a shard stands once it is past an object."""
        return object_key
