"""A worker has a second connection for its heartbeat: where there is none, that is told and not guessed."""

from __future__ import annotations

import time
import uuid

import pytest
from django.db import OperationalError, connections

from massmigration import recorder
from massmigration.checks import check_pools
from massmigration.databases.capacity import explain_shortage, find_pool_fault
from massmigration.databases.redaction import describe
from massmigration.engine.leases import Heartbeat
from massmigration.models import MigrationShard
from tests.conftest import needs_postgres

SENTENCE = "Each worker thread needs 2 while an operation is long"


@pytest.fixture
def one_connection():
    """Let the alias ``postgres`` be used by a role that may have one connection, and which is open."""
    connection, role = connections["postgres"], f"limited_{uuid.uuid4().hex[:8]}"
    before = dict(connection.settings_dict)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")
        cursor.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    connection.close()
    connection.settings_dict["USER"] = role
    connection.ensure_connection()
    yield
    connection.close()
    connection.settings_dict["USER"] = before["USER"]
    with connection.cursor() as cursor:
        cursor.execute(f"DROP OWNED BY {role}")
        cursor.execute(f"DROP ROLE {role}")


@needs_postgres
@pytest.mark.django_db(transaction=True, databases=["default", "postgres"])
def test_an_error_of_a_database_without_a_free_connection_says_what_to_do(one_connection):
    other = connections["postgres"].copy()
    with pytest.raises(OperationalError) as caught:
        other.ensure_connection()
    assert SENTENCE in describe(caught.value)


@needs_postgres
@pytest.mark.django_db(transaction=True, databases=["default", "postgres"])
def test_a_heartbeat_without_a_connection_is_told(settings, caplog, one_connection):
    settings.MASSMIGRATION_LEASE_SECONDS = 0.3
    attempt = uuid.uuid4()
    shard = MigrationShard(id="one", attempt_uuid=attempt, key="testapp:0001_x", kind="range")
    recorder.ShardMaker("postgres").add_shards([shard])
    assert recorder.ShardRecorder("postgres").claim(shard, "worker", 0.3, None)
    with Heartbeat(shard, "postgres"):
        deadline = time.monotonic() + 10
        while SENTENCE not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
    (first, *_) = [record for record in caplog.records if SENTENCE in record.getMessage()]
    assert first.levelname == "WARNING"


@pytest.mark.parametrize(
    ("said", "is_shortage"),
    [
        ("FATAL:  sorry, too many clients already", True),
        ('FATAL:  too many connections for role "site"', True),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", True),
        ("(1040, 'Too many connections')", True),
        ("(1203, \"User site already has more than 'max_user_connections' active connections\")", True),
        ("couldn't get a connection after 30.00 sec", True),
        ("connection refused", False),
        ("deadlock detected", False),
    ],
)
def test_what_counts_as_a_shortage(said, is_shortage):
    assert (SENTENCE in explain_shortage(said)) is is_shortage


def test_an_error_of_the_author_is_not_taken_for_one():
    assert describe(ValueError("too many connections")) == "ValueError: too many connections"


@pytest.mark.parametrize(
    ("options", "is_fault"),
    [
        ({}, False),
        ({"pool": False}, False),
        ({"pool": True}, False),
        ({"pool": {"min_size": 1}}, True),
        ({"pool": {"min_size": 0, "max_size": 1}}, True),
        ({"pool": {"min_size": 1, "max_size": 2}}, False),
        ({"pool": {"max_size": 8}}, False),
    ],
)
def test_w017_a_pool_that_is_too_small_for_one_worker(options, is_fault, settings):
    assert bool(find_pool_fault({"OPTIONS": options})) is is_fault
    alias = settings.DATABASES["default"]
    before = alias.get("OPTIONS", {})
    alias["OPTIONS"] = options
    try:
        assert [message.id for message in check_pools(None)] == (["massmigration.W017"] if is_fault else [])
    finally:
        alias["OPTIONS"] = before
