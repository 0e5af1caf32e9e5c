"""Settings are read live, have defaults, and a bad value is refused in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from massmigration.conf import DEFAULT_BACKEND, SETTING_NAMES, conf, find_python
from massmigration.exceptions import ConfigurationError


def test_defaults(settings):
    del settings.MASSMIGRATION_LOG_DIR
    assert conf.backend == DEFAULT_BACKEND
    assert conf.task_queue is None
    assert conf.task_location == ""
    assert conf.task_url == ""
    assert conf.task_service_account == ""
    assert conf.task_deadline == 600
    assert conf.watch_seconds == 60
    assert conf.record_cache_timeout == 2
    assert conf.modules == {}
    assert conf.shard_count == 8
    assert conf.batch_seconds == 0.5
    assert conf.slice_seconds == 60
    assert conf.lease_seconds == 30
    assert conf.max_retries == 5
    assert conf.python == sys.executable
    assert conf.log_dir.name.startswith("massmigration-")
    assert conf.show_database_details is False


def test_a_changed_setting_is_seen_at_once(settings):
    settings.MASSMIGRATION_SHARD_COUNT = 3
    assert conf.shard_count == 3
    settings.MASSMIGRATION_LOG_DIR = Path("somewhere")
    assert conf.log_dir == Path("somewhere")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SHARD_COUNT", 0),
        ("SHARD_COUNT", 1.5),
        ("SHARD_COUNT", True),
        ("SHARD_COUNT", "8"),
        ("BATCH_SECONDS", 0),
        ("SLICE_SECONDS", -1),
        ("LEASE_SECONDS", None),
        ("MAX_RETRIES", -1),
        ("RECORD_CACHE_TIMEOUT", "2"),
        ("BACKEND", 7),
        ("TASK_QUEUE", ["a"]),
        ("TASK_PROJECT", 5),
        ("TASK_LOCATION", None),
        ("TASK_URL", "example.com"),
        ("TASK_URL", "ftp://example.com"),
        ("TASK_SERVICE_ACCOUNT", 5),
        ("TASK_DEADLINE", 14),
        ("TASK_DEADLINE", float("nan")),
        ("WATCH_SECONDS", 0),
        ("MODULES", ["places"]),
        ("MODULES", {"places": 3}),
        ("PYTHON", 3.11),
        ("LOG_DIR", 1),
        ("SHOW_DATABASE_DETAILS", "no"),
    ],
)
def test_a_bad_value_is_refused(settings, name, value):
    setattr(settings, f"MASSMIGRATION_{name}", value)
    with pytest.raises(ConfigurationError, match=f"MASSMIGRATION_{name} is .* but it has to be"):
        getattr(conf, name.lower())


def test_the_project_is_what_google_says_where_the_setting_is_missing(settings, monkeypatch):
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    assert conf.task_project == ""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "of-the-platform")
    assert conf.task_project == "of-the-platform"
    settings.MASSMIGRATION_TASK_PROJECT = "ours"
    assert conf.task_project == "ours"


def test_the_deadline_is_what_the_environment_says_where_the_setting_is_missing(settings, monkeypatch):
    monkeypatch.setenv("MASSMIGRATION_TASK_DEADLINE", "900")
    assert conf.task_deadline == 900
    settings.MASSMIGRATION_TASK_DEADLINE = 120
    assert conf.task_deadline == 120
    del settings.MASSMIGRATION_TASK_DEADLINE
    for text in ("ten minutes", "nan", "3"):
        monkeypatch.setenv("MASSMIGRATION_TASK_DEADLINE", text)
        with pytest.raises(ConfigurationError, match="MASSMIGRATION_TASK_DEADLINE is"):
            _ = conf.task_deadline


def test_the_base_url_ends_without_a_slash(settings):
    settings.MASSMIGRATION_TASK_URL = "https://jobs.example.com/"
    assert conf.task_url == "https://jobs.example.com"


def test_names_are_those_of_the_properties():
    assert "MASSMIGRATION_BACKEND" in SETTING_NAMES
    assert len(SETTING_NAMES) == 20


def test_python_is_found_where_the_executable_is_a_web_server(monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").touch()
    monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert find_python() == str(tmp_path / "bin" / "python3")
