"""The site as it is hosted, without faults: one press of "Run migration", and every row is visited once."""

from __future__ import annotations

import pytest
from django.conf import settings

from tests.cloud.e2e.site import (
    CLOUD_TASKS,
    DJANGAE,
    KEYS,
    LOCAL,
    add_rows,
    count_visits,
    get_record,
    get_shards,
    serve,
)
from tests.conftest import needs_postgres
from tests.servers import processes

ROWS = 48
ALIASES = [alias for alias in ("postgres", "datastore", "firestore") if alias in settings.DATABASES]


@pytest.mark.parametrize(
    ("any_alias", "backend"),
    [
        pytest.param("postgres", CLOUD_TASKS, marks=needs_postgres),
        ("datastore", CLOUD_TASKS),
        ("firestore", CLOUD_TASKS),
        ("datastore", DJANGAE),
    ],
    indirect=["any_alias"],
)
def test_all_kinds_are_applied_after_one_press_of_a_button(any_alias, backend):
    for kind in KEYS:
        add_rows(any_alias, kind, ROWS)
    with serve(backend) as site:
        for key in KEYS.values():  # one after the other, but they run side by side
            assert "was started" in site.press("Run migration", key, any_alias)
        for key in KEYS.values():
            site.wait_for_status(key, any_alias)
        log = site.read_log()
        calls = {kind: len(site.read_calls(kind)) for kind in KEYS}
    assert calls == dict.fromkeys(KEYS, ROWS)
    for kind, key in KEYS.items():
        assert count_visits(any_alias, kind) == {1: ROWS}
        shards = get_shards(key, any_alias)
        assert len(shards) == (1 if kind == "simple" else 4)
        assert sum(shard.batches for shard in shards) >= (1 if kind == "simple" else ROWS / 10)
        assert get_record(key, any_alias).status == "applied"
    assert "Traceback" not in log


@pytest.mark.parametrize("way", ["a plain HTTP target", "no queue"])
def test_the_mapper_needs_neither_app_engine_nor_a_queue(clean_databases, way):
    """As on Cloud Run: tasks are addressed to the site's own URL; or on a machine where processes outlive requests."""
    for alias in ALIASES:
        add_rows(alias, "mapper", ROWS)
    port = processes.get_free_port()
    url = f"http://127.0.0.1:{port}" if way == "a plain HTTP target" else ""
    with serve(CLOUD_TASKS if url else LOCAL, port=port, SITE_TASK_URL=url) as site:
        for alias in ALIASES:
            site.press("Run migration", KEYS["mapper"], alias)
        for alias in ALIASES:
            site.wait_for_status(KEYS["mapper"], alias)
    for alias in ALIASES:
        assert count_visits(alias, "mapper") == {1: ROWS}
