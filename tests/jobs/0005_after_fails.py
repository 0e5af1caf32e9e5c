from massmigration import SimpleMigration


class Migration(SimpleMigration):
    """Do nothing, after 0004_fails."""

    dependencies = [("testapp", "0004_fails")]

    def operation(self, db_alias):
        pass
