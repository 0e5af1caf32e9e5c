"""A permission hook whose answer nobody waits for."""

from massmigration import SimpleMigration


class Migration(SimpleMigration):
    """Answer with a coroutine."""

    def operation(self, db_alias):
        pass

    async def has_run_permission(self, user):  # type: ignore[override]
        return False
