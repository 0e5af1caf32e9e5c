"""A permission hook that raises an error."""

from massmigration import SimpleMigration


class Migration(SimpleMigration):
    """Ask badly."""

    def operation(self, db_alias):
        pass

    def has_run_permission(self, user):
        raise ValueError("no idea")
