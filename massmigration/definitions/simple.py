"""SimpleMigration: one call, in one transaction."""

from __future__ import annotations

from massmigration.definitions.base import WorkedMigration


class SimpleMigration(WorkedMigration):
    """A migration that is one call of ``operation``, in one transaction.

    For what a database does quickly in one statement, or for small tables. Use ``MapperMigration`` or
    ``BatchMigration`` for what takes longer than a few seconds.
    """

    def operation(self, db_alias: str) -> None:
        """Change the data.

        Args:
            db_alias: The database that is migrated; use it in each query: ``Model.objects.using(db_alias)``.
        """
        raise NotImplementedError(f"{self.key} has no operation(). Write it.")
