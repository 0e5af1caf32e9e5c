"""A file that works, behind one that does not."""

from massmigration import SimpleMigration


class Migration(SimpleMigration):
    """Let nobody do anything."""

    dependencies = [("adminapp", "0001_broken")]

    def operation(self, db_alias):
        pass

    def has_run_permission(self, user):
        return False
