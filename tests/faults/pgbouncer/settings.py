"""Settings of processes that reach PostgreSQL through PgBouncer, as its users are told to have them."""

from tests.faults.settings import *  # noqa: F403
from tests.faults.settings import DATABASES

if "postgres" in DATABASES:
    DATABASES["postgres"]["DISABLE_SERVER_SIDE_CURSORS"] = True
    # Without server_side_binding psycopg has nothing to prepare, whatever is said here.
    DATABASES["postgres"]["OPTIONS"] = {"prepare_threshold": 0}
