"""The programmatic interface: the same answers and refusals as the pages and commands."""

from __future__ import annotations

import getpass

import pytest
from django.contrib.auth import get_user_model

from massmigration import api, recorder
from massmigration.exceptions import BrokenMigration, DatabaseNotAllowed, IllegalMove, MigrationNotFound, WaitTimedOut
from massmigration.models import MigrationRecord
from tests.engine.support import work
from tests.testapp.models import City
from tests.throwaway import throwaway_apps

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

MAPPER = """
from massmigration import MapperMigration
from tests.testapp.models import City


class Migration(MapperMigration):
    '''Count the visits.

    And more.
    '''

    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1
"""
KEY = "shop:0001_count"


@pytest.fixture
def shop(tmp_path, settings):
    with throwaway_apps(tmp_path, settings) as maker:
        maker.make_app("shop", {"0001_count.py": MAPPER, "0002_broken.py": "1 / 0", "0003_again.py": MAPPER})
        yield maker


def test_reading(shop, db_alias):
    assert [migration.key for migration in api.get_all_migrations() if migration.app_label == "shop"] == [
        KEY,
        "shop:0003_again",
    ]
    migration = api.get_migration(("shop", "0001_count"))
    assert migration.description == "Count the visits."
    assert api.get_record(KEY, db_alias) is None
    assert api.get_progress(migration, db_alias).status == "not_run"
    assert not api.migration_is_applied(KEY, db_alias)
    assert db_alias in api.get_database_aliases(migration)
    assert api.get_allowed_actions(KEY, db_alias) == ["start", "fake"]
    with pytest.raises(BrokenMigration, match="division by zero"):
        api.get_migration("shop:0002_broken")
    with pytest.raises(MigrationNotFound):
        api.get_migration("shop:0009_missing")
    with pytest.raises(MigrationNotFound):
        api.get_progress("shop:0009_missing", db_alias)
    with pytest.raises(DatabaseNotAllowed):
        api.get_record(KEY, "typo")


def test_a_whole_life(shop, db_alias):
    user = get_user_model().objects.create_user("ada")
    City.objects.using(db_alias).create(name="Lyon")
    record = api.start_migration(KEY, db_alias, user=user, enqueue=False)
    assert (record.status, record.key) == ("enqueued", KEY)
    assert api.pause_migration(KEY, db_alias, actor="eve").status == "paused"
    assert api.get_allowed_actions(KEY, db_alias) == ["resume", "cancel", "restart", "fake", "reset"]
    assert api.resume_migration(KEY, db_alias, enqueue=False).status == "running"
    assert work(api.get_migration(KEY), db_alias).status == "applied"
    assert api.migration_is_applied(KEY, db_alias)
    progress = api.wait_for_migration(KEY, db_alias, timeout=1)
    assert (progress.processed, progress.started_by) == (1, "ada")
    with pytest.raises(IllegalMove, match="is applied"):
        api.start_migration(KEY, db_alias, enqueue=False)
    api.reset_migration(KEY, db_alias)
    events = api.get_events(KEY, db_alias)
    assert [(event.action, event.actor) for event in events if event.origin != "worker"] == [
        ("start", "ada"),
        ("pause", "eve"),
        ("resume", getpass.getuser()),
        ("reset", getpass.getuser()),
    ]
    assert events[0].user_id == str(user.pk)
    assert len(api.get_events(KEY, db_alias, limit=2)) == 2
    assert api.fake_migration(KEY, db_alias).status == "applied"
    assert api.get_progress(KEY, db_alias).faked
    assert api.restart_migration(KEY, db_alias, enqueue=False).status == "enqueued"
    assert api.cancel_migration(KEY, db_alias).status == "cancelled"


def test_waiting_times_out(shop, db_alias):
    api.start_migration(KEY, db_alias, enqueue=False)
    with pytest.raises(WaitTimedOut, match="is still enqueued"):
        api.wait_for_migration(KEY, db_alias, timeout=0.01)


def test_broken_and_orphaned_are_shown_and_can_be_put_away(shop, db_alias):
    api.start_migration(KEY, db_alias, enqueue=False)
    record = MigrationRecord.objects.using(db_alias).get()
    for name in ("0002_broken", "0099_gone"):
        MigrationRecord.objects.using(db_alias).create(
            key=f"shop:{name}", app_label="shop", name=name, status="running", attempt_uuid=record.attempt_uuid
        )
    rows = {row.key: row for row in api.get_all_progress([db_alias]) if row.app_label == "shop"}
    assert rows["shop:0002_broken"].status == "broken"
    assert "division by zero" in rows["shop:0002_broken"].error
    assert rows["shop:0099_gone"].status == "orphaned"
    assert rows[KEY].status == "enqueued"
    assert rows["shop:0003_again"].status == "not_run"
    for key in ("shop:0002_broken", "shop:0099_gone"):
        assert api.get_allowed_actions(key, db_alias) == ["pause", "cancel"]
        api.cancel_migration(key, db_alias)
        assert api.get_allowed_actions(key, db_alias) == ["reset"]
        api.reset_migration(key, db_alias)
    with pytest.raises(MigrationNotFound):
        api.get_progress("shop:0099_gone", db_alias)


def test_progress_has_exactly_the_fields_of_the_contract(shop, db_alias):
    names = (
        "key app_label name database status direction reason processed changed failed total total_is_estimate shards "
        "shards_done workers_alive stalled waiting_for rate eta_seconds attempt_uuid backend started_at finished_at "
        "last_progress_at started_by faked error"
    )
    City.objects.using(db_alias).create(name="Lyon")
    api.start_migration(KEY, db_alias, enqueue=False)
    work(api.get_migration(KEY), db_alias)
    row = api.get_progress(KEY, db_alias).as_dict()
    assert list(row) == names.split()
    assert row["backend"] == "massmigration.backends.local.LocalBackend"
    assert (row["status"], row["processed"], row["changed"], row["failed"], row["total"]) == ("applied", 1, 1, 0, 1)
    assert row["started_at"].startswith("20")


def test_a_database_without_tables_is_told_about(shop, db_alias, settings):
    from django.core.management import call_command

    call_command("migrate", "massmigration", "zero", database=db_alias, verbosity=0)
    try:
        assert not recorder.has_tables(db_alias)
        row = next(row for row in api.get_all_progress([db_alias]) if row.key == KEY)
        assert row.status == "not_run"
        assert f"migrate --database={db_alias}" in row.error
    finally:
        call_command("migrate", "massmigration", database=db_alias, verbosity=0)
