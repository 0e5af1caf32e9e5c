"""A permission hook that looks at the action and the database."""

from massmigration import SimpleMigration


class Migration(SimpleMigration):
    """Let trainees pause, and on the default database only."""

    def operation(self, db_alias):
        pass

    def has_run_permission(self, user, action="", db_alias=""):
        return user.get_username() != "trainee" or (action == "pause" and db_alias == "default")
