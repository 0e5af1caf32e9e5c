"""showmassmigrations: the list as text and as JSON, on every database, and what --check says."""

from __future__ import annotations

import datetime
import json
import re

import pytest
from django.utils import timezone

from massmigration import api, states
from massmigration.models import MigrationRecord, MigrationShard
from tests.management.conftest import make_cities
from tests.testapp.models import City
from tests.throwaway import simple

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

FIELDS = [
    "key",
    "app_label",
    "name",
    "database",
    "status",
    "direction",
    "reason",
    "processed",
    "changed",
    "failed",
    "total",
    "total_is_estimate",
    "shards",
    "shards_done",
    "workers_alive",
    "stalled",
    "waiting_for",
    "rate",
    "eta_seconds",
    "attempt_uuid",
    "backend",
    "started_at",
    "finished_at",
    "last_progress_at",
    "started_by",
    "faked",
    "error",
]

NAMES, SLOW, FAILS = "testapp:0001_names", "testapp:0002_slow", "testapp:0004_fails"


def get_row(manage, key, *args):
    rows = json.loads(manage("showmassmigrations", "--format", "json", *args).output)
    (row,) = [row for row in rows if row["key"] == key and row["database"] == "default"]
    return row


def get_line(manage, name, *args):
    output = manage("showmassmigrations", "--database=default", *args).output
    (line,) = [line for line in output.splitlines() if name in line]
    return line


class TestText:
    def test_lists_app_by_app_with_a_word_for_each_status(self, manage):
        make_cities("default", 1_200)
        City.objects.create(name="Nowhere", note="bad")
        manage("massmigrate", NAMES)
        manage("massmigrate", FAILS)
        api.start_migration(SLOW, enqueue=False)
        api.pause_migration(SLOW)
        api.fake_migration("testapp:0006_same")
        answer = manage("showmassmigrations", "--database=default")
        assert answer.code == 0
        lines = answer.output.splitlines()
        assert lines[0] == "testapp"
        assert re.fullmatch(r" \[X\] 0001_names        applied, 1,201 rows, \d\d:\d\d:\d\d", lines[1])
        assert lines[2] == " [ ] 0002_slow         paused"
        assert lines[3] == " [ ] 0003_after_slow   not run"
        assert re.match(
            r" \[ \] 0004_fails        failed, 1,200 of 1,201 rows \(99 %\): ValueError: NOWHERE is bad", lines[4]
        )
        assert re.match(r" \[X\] 0006_same         applied without running it, \d\d:\d\d:\d\d", lines[6])

    @pytest.mark.needs_postgres
    def test_names_the_database_if_there_are_several(self, manage):
        manage("massmigrate", NAMES, "--database=postgres")
        output = manage("showmassmigrations").output
        assert " [ ] 0001_names        not run on default\n" in output
        assert " [X] 0001_names        applied on postgres, 0 rows" in output
        assert " on " not in manage("showmassmigrations", "--database=postgres").output

    def test_tells_since_when_a_run_is_stalled(self, manage):
        api.start_migration(NAMES, enqueue=False)
        MigrationRecord.objects.update(moved_at=timezone.now() - datetime.timedelta(days=3))
        assert re.search(
            r"enqueued, stalled since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d: no worker is working on it",
            get_line(manage, "0001"),
        )

    def test_shows_broken_files_and_records_without_a_file(self, manage, other_app):
        other_app.make_app("shops", {"0001_broken.py": "import nothing_like_it\n", "0002_good.py": simple()})
        MigrationRecord.objects.create(key="shops:0009_gone", app_label="shops", name="0009_gone", status="applied")
        output = manage("showmassmigrations", "shops", "--database=default").output
        assert re.search(r"\[ \] 0001_broken +broken: .*nothing_like_it", output)
        assert re.search(r"\[ \] 0002_good +not run\n", output)
        assert re.search(
            r"\[ \] 0009_gone +orphaned: Its file is gone\. .* massmigration reset shops 0009_gone\n", output
        )

    def test_of_an_app_without_any(self, manage):
        assert manage("showmassmigrations", "auth").output == "auth\n (no mass migrations)\n"

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["nowhere"], "No installed app with label 'nowhere'."),
            (["--database=nowhere"], "There is no database 'nowhere' in DATABASES."),
        ],
    )
    def test_refuses_what_is_not_there(self, manage, words, sentence):
        answer = manage("showmassmigrations", *words)
        assert answer.code == 2
        assert sentence in answer.output


class TestCheck:
    def test_fails_while_something_is_unapplied(self, manage):
        assert manage("showmassmigrations", "--check", "--database=default").code == 1
        manage("massmigrate", "--noinput")
        assert manage("showmassmigrations", "--check", "--database=default").code == 0

    def test_looks_at_all_databases_by_default(self, manage, settings):
        manage("massmigrate", "--noinput")
        assert manage("showmassmigrations", "--check").code == (1 if len(settings.DATABASES) > 1 else 0)
        manage("massmigrate", "--noinput", "--all-databases")
        assert manage("showmassmigrations", "--check").code == 0

    def test_of_an_app_looks_at_that_only(self, manage, other_app):
        other_app.make_app("shops", {"0001_first.py": simple()})
        manage("massmigrate", "shops", "--all-databases")
        assert manage("showmassmigrations", "shops", "--check").code == 0
        assert manage("showmassmigrations", "testapp", "--check").code == 1

    def test_counts_a_broken_file(self, manage, other_app):
        other_app.make_app("shops", {"0001_broken.py": "import nothing_like_it\n"})
        assert manage("showmassmigrations", "shops", "--check").code == 1

    def test_does_not_count_a_record_without_a_file(self, manage):
        manage("massmigrate", "--noinput")
        MigrationRecord.objects.create(key="gone:0009_gone", app_label="gone", name="0009_gone", status="paused")
        answer = manage("showmassmigrations", "--check", "--database=default")
        assert answer.code == 0
        assert "0009_gone" in answer.output


class TestJson:
    def test_has_exactly_the_fields_of_the_contract(self, manage):
        rows = json.loads(manage("showmassmigrations", "--format=json").output)
        assert rows
        for row in rows:
            assert list(row) == FIELDS

    def test_of_what_was_not_run(self, manage):
        row = get_row(manage, NAMES)
        known = {name: value for name, value in row.items() if value is not None}
        assert known == {
            "key": NAMES,
            "app_label": "testapp",
            "name": "0001_names",
            "database": "default",
            "status": "not_run",
            "stalled": False,
            "faked": False,
        }

    def test_of_what_is_applied(self, manage):
        make_cities("default", 7)
        manage("massmigrate", NAMES, "--actor=ada")
        row = get_row(manage, NAMES)
        assert (row["status"], row["direction"], row["reason"]) == ("applied", "forward", None)
        assert (row["processed"], row["changed"], row["failed"], row["total"]) == (7, 7, 0, 7)
        assert (row["total_is_estimate"], row["shards"], row["shards_done"], row["workers_alive"]) == (False, 1, 1, 0)
        assert (row["stalled"], row["waiting_for"], row["faked"], row["error"]) == (False, None, False, None)
        assert (row["started_by"], row["backend"]) == ("ada", "massmigration.backends.local.LocalBackend")
        assert row["attempt_uuid"] == api.get_progress(NAMES).attempt_uuid
        assert row["rate"] > 0
        times = [
            datetime.datetime.fromisoformat(row[name]) for name in ("started_at", "last_progress_at", "finished_at")
        ]
        assert times == sorted(times)
        assert all(time.tzinfo is not None for time in times)

    def test_of_a_failure(self, manage):
        City.objects.create(name="Nowhere", note="bad")
        manage("massmigrate", FAILS)
        row = get_row(manage, FAILS)
        assert (row["status"], row["reason"], row["failed"]) == ("failed", "operation_error", 1)
        assert "ValueError: Nowhere is bad" in row["error"]

    def test_does_not_know_changed_without_update_fields(self, manage):
        make_cities("default", 3)
        manage("massmigrate", "testapp", "0003")
        row = get_row(manage, "testapp:0003_after_slow")
        assert (row["processed"], row["changed"]) == (3, None)

    def test_of_a_stalled_run(self, manage):
        api.start_migration(NAMES, enqueue=False)
        MigrationRecord.objects.update(moved_at=timezone.now() - datetime.timedelta(minutes=1))
        assert MigrationShard.objects.count() == 1
        row = get_row(manage, NAMES)
        assert (row["status"], row["stalled"], row["workers_alive"]) == (states.ENQUEUED, True, 0)

    def test_of_broken_and_orphaned_ones(self, manage, other_app):
        other_app.make_app("shops", {"0001_broken.py": "import nothing_like_it\n"})
        MigrationRecord.objects.create(key="shops:0009_gone", app_label="shops", name="0009_gone", status="paused")
        assert get_row(manage, "shops:0001_broken", "shops")["status"] == "broken"
        assert "nothing_like_it" in get_row(manage, "shops:0001_broken", "shops")["error"]
        assert get_row(manage, "shops:0009_gone", "shops")["status"] == "orphaned"
