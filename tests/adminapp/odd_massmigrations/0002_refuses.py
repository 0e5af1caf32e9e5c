"""Author's code that raises an error in each place that the pages call."""

from massmigration import MapperMigration


class Migration(MapperMigration):
    """Raise errors."""

    def get_queryset(self, db_alias):
        raise ValueError("no queryset today")

    def operation(self, city, db_alias):
        pass
