"""DjangaeBackend without djangae: what is told, and what can be known before anything is deferred."""

from __future__ import annotations

import json
import sys

import pytest

from massmigration.backends import djangae
from massmigration.backends.base import RUN_SHARD, TASKS
from massmigration.backends.djangae import (
    DEFER_KEYWORDS,
    OWN_KEYWORDS,
    PIP_COMMAND,
    DjangaeBackend,
    check_defer_kwargs,
    run_task,
)
from massmigration.exceptions import BackendNotInstalled, ConfigurationError
from tests.markdown import read


@pytest.fixture
def no_djangae(monkeypatch):
    """Hide djangae where it is installed."""
    monkeypatch.setitem(sys.modules, "djangae.tasks", None)


@pytest.mark.parametrize("release", [None, "1.1.0"])
def test_a_missing_package_and_the_release_for_python_2_give_the_pip_command(no_djangae, tmp_path, release):
    sys.path.insert(0, str(tmp_path))
    try:
        if release:
            info = tmp_path / f"djangae-{release}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: djangae\nVersion: {release}\n")
        with pytest.raises(BackendNotInstalled) as caught:
            DjangaeBackend(None, {})
    finally:
        sys.path.remove(str(tmp_path))
    assert str(caught.value).endswith(f"Type: {PIP_COMMAND}")
    if release:
        assert "djangae 1.1.0 does not work" in str(caught.value)


def test_what_defer_knows_is_passed_on():
    given = dict.fromkeys(DEFER_KEYWORDS, "x")
    assert check_defer_kwargs(given) == given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *[({name: 1}, f"'{name}', which DjangaeBackend decides itself") for name in OWN_KEYWORDS],
        ({"queue": "q"}, "'queue', which defer() does not know. Use these: _headers, "),
        ({"_target": "q"}, "'_target', which defer() does not know"),
        ({1: "q"}, "1, which defer() does not know"),
        (["_queue"], "is ['_queue'], but it has to be a dictionary"),
    ],
)
def test_what_defer_does_not_know_or_is_not_for_migrations_to_say_is_refused(given, said):
    with pytest.raises(ConfigurationError) as caught:
        check_defer_kwargs(given)
    assert said in str(caught.value)


def test_what_is_deferred_calls_our_tasks_and_nothing_else(monkeypatch, caplog):
    calls = []
    monkeypatch.setattr(djangae, "import_string", lambda path: lambda **arguments: calls.append((path, arguments)))
    arguments = {"shard_id": "Zürich – 東京 🚀", "db_alias": "default"}
    for task in TASKS:
        run_task(task, json.dumps(arguments))
    assert calls == [(task, arguments) for task in TASKS]
    for task in ("os.system", "massmigration.tasks.work", "", f"{RUN_SHARD} "):
        run_task(task, json.dumps(arguments))
        assert repr(task) in caplog.records[-1].getMessage()
    assert len(calls) == len(TASKS)


def test_the_keywords_of_defer_are_documented_and_no_others():
    rows = read("djangae.md").get_section("What a migration can say").rows
    assert sorted(row[0].strip("`") for row in rows) == sorted(DEFER_KEYWORDS)
