from massmigration import BaseMigration
from tests.faults.traps import die


class Migration(BaseMigration):
    """Kill the worker that launches."""

    def launch(self, db_alias):
        die("kills", "kills")
