"""MapperMigration: one call for each object of a queryset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from massmigration.definitions.base import QuerysetMigration


class MapperMigration(QuerysetMigration):
    """A migration that calls ``operation`` for each object of a queryset.

    With ``update_fields`` the operation only sets attributes, and the changed objects of a batch are written in one
    statement. Without it the operation saves by itself.
    """

    update_fields: ClassVar[Sequence[str]] = ()
    """Fields that the operation sets; written back in bulk, one statement per batch."""

    on_conflict: ClassVar[Literal["revisit", "overwrite"]] = "revisit"
    """Where rows cannot be locked: visit a row again that was changed meanwhile, or overwrite it."""

    write_unchanged: ClassVar[bool] = False
    """Also write objects whose ``update_fields`` did not change."""

    def operation(self, obj: Any, db_alias: str) -> None:
        """Migrate one object.

        Args:
            obj: An instance of the queryset's model.
            db_alias: The database that is migrated.
        """
        raise NotImplementedError(f"{self.key} has no operation(). Write it.")

    def prepare(self, objects: list[Any], db_alias: str) -> None:
        """Do once per batch what would be slow once per object, such as reading related rows.

        It should read only: a pause may end a batch between two objects, and the rest is prepared again then.

        Args:
            objects: The objects that ``operation`` is about to be called with.
            db_alias: The database that is migrated.
        """
