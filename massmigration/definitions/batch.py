"""BatchMigration: one call for each batch of rows, as a queryset."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from massmigration.definitions.base import QuerysetMigration


class BatchMigration(QuerysetMigration):
    """A migration that calls ``operation`` with a queryset of some thousand rows at a time.

    For what ``.update()`` and ``.delete()`` can do, at the database's own speed.
    """

    def operation(self, queryset: QuerySet[Any], db_alias: str) -> None:
        """Migrate one batch.

        Args:
            queryset: The batch's rows, to be used with ``.update(...)`` or ``.delete()``.
            db_alias: The database that is migrated.
        """
        raise NotImplementedError(f"{self.key} has no operation(). Write it.")
