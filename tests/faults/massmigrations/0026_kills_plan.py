from massmigration import CustomMigration
from tests.faults.traps import die


class Migration(CustomMigration):
    """Kill the worker that plans."""

    def get_shards(self, db_alias):
        die("kills", "kills")

    def get_items(self, shard, cursor, db_alias):
        yield 1, 1

    def operation(self, item, db_alias):
        pass
