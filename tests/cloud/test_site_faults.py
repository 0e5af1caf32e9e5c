"""The site as it is hosted, and what happens to it: killed, delivered to twice, its queue lost, paused, unreachable."""

from __future__ import annotations

import html
import os
import random
import shutil
import threading
import time
from collections import Counter
from typing import Any

import pytest

from massmigration import states
from massmigration.backends import payloads
from massmigration.backends.base import RUN_SHARD, WATCH
from massmigration.models import MigrationShard
from tests.cloud.app.models import Row
from tests.cloud.e2e.proxy import UNAVAILABLE, forward, stand_between
from tests.cloud.e2e.site import CLOUD_TASKS, DJANGAE, KEYS, Site, add_rows, count_visits, get_record, get_shards, serve
from tests.conftest import ROOT, needs_postgres
from tests.servers import cloudtasks, processes

CODE = ROOT / "tests" / "cloud" / "e2e" / "massmigrations"
KILLS = 3  # after six at one object, without a batch that was committed between, it is to blame
BATCH = 10
QUICK = {"SITE_LEASE_SECONDS": "1", "SITE_WATCH_SECONDS": "1"}

IN_BATCHES = ("mapper", "saves", "batch", "custom")


def count_processed(kind: str, db_alias: str) -> int:
    return sum(shard.processed for shard in get_shards(KEYS[kind], db_alias))


def halt_in_the_middle(site: Site, db_alias: str, done_before: dict[str, int], halts_before: dict[str, int]) -> None:
    """Return when each kind has committed a batch more than before, and then halted within the next one."""
    working = set(IN_BATCHES)

    def are_halted() -> bool:
        for kind in sorted(working):
            if count_processed(kind, db_alias) > done_before[kind]:
                site.halt(kind)
                working.remove(kind)
        return not working and all(len(site.read_halted(place)) > halts_before[place] for place in halts_before)

    site.wait_for(are_halted, seconds=300)


def test_kills_in_the_middle_of_batches_lose_nothing(any_alias):
    rows = {**dict.fromkeys(IN_BATCHES, 200), "simple": 40}
    for kind, count in rows.items():
        add_rows(any_alias, kind, count)
    places = ["middle of simple", *IN_BATCHES]
    repeats = dict.fromkeys(rows, 0)
    # With a lease so long few are killed while they renew it: the emulators keep the locks of such for half a minute.
    with serve(CLOUD_TASKS, SITE_LEASE_SECONDS="3", SITE_WATCH_SECONDS="1", SITE_STEP_SECONDS="0.005") as site:
        site.halt("middle of simple")
        for key in KEYS.values():
            site.press("Run migration", key, any_alias)
        done = dict.fromkeys(IN_BATCHES, 0)
        for number in range(KILLS):
            halts_before = {place: len(site.read_halted(place)) if number else 0 for place in places}
            halt_in_the_middle(site, any_alias, done, halts_before)
            site.kill()
            before, done = done, {kind: count_processed(kind, any_alias) for kind in IN_BATCHES}
            for kind in IN_BATCHES:
                assert before[kind] < done[kind] < rows[kind], f"{kind} was not in the middle at kill {number + 1}"
            assert {get_record(key, any_alias).status for key in KEYS.values()} == {states.RUNNING}
            for kind in IN_BATCHES:
                site.go_on(kind)
            site.start()
        site.go_on("middle of simple")
        for key in KEYS.values():
            site.wait_for_status(key, any_alias, seconds=300)
        calls = {kind: len(site.read_calls(kind)) for kind in rows}
    for kind, count in rows.items():
        visits = count_visits(any_alias, kind)
        assert visits.total() == count
        assert min(visits) == 1, f"{kind} lost rows"
        repeats[kind] = sum((times - 1) * number for times, number in visits.items())
    assert repeats["mapper"] == 0
    if any_alias == "postgres":
        assert set(repeats.values()) == {0}
    assert repeats["simple"] <= KILLS * rows["simple"] // 2
    for kind in IN_BATCHES:
        assert repeats[kind] <= KILLS * BATCH
        assert calls[kind] > rows[kind], "no kill met a batch"


def test_every_task_delivered_twice_at_once_and_again_later_does_nothing_twice(any_alias):
    for kind in KEYS:
        add_rows(any_alias, kind, 40)
    port = processes.get_free_port()
    patient = {"SITE_LEASE_SECONDS": "10", "SITE_WATCH_SECONDS": "2", "SITE_STEP_SECONDS": "0.005"}
    with stand_between(port) as proxy, serve(CLOUD_TASKS, port=port, **patient) as site:
        proxy.delays = random.Random(3)
        for key in KEYS.values():
            site.press("Run migration", key, any_alias)
        for key in KEYS.values():
            site.wait_for_status(key, any_alias, seconds=300)
        proxy.finish()  # also late copies come, when all is over; the site must not be killed before
        assert {get_record(key, any_alias).status for key in KEYS.values()} == {states.APPLIED}
    for kind in KEYS:
        assert count_visits(any_alias, kind) == {1: 40}
    late = [delivery for delivery in proxy.deliveries if delivery.copy == 2]
    first = [delivery for delivery in proxy.deliveries if delivery.copy == 0]
    assert {delivery.task for delivery in late} == {delivery.task for delivery in first}
    begun = {delivery.task: delivery.began_at for delivery in first}
    overtaken = [copy for copy in late if any(begun[copy.task] < at < copy.began_at for at in begun.values())]
    assert len(overtaken) > 10
    assert {delivery.task for delivery in first if delivery.status == 200} == set(begun)
    watches = [delivery for delivery in first if payloads.load(delivery.body).name == WATCH]
    seconds = max(begun.values()) - min(begun.values())
    assert len(watches) <= len(KEYS) * (seconds + 3), "watches have multiplied"


def start_and_pause(site: Site, db_alias: str) -> dict[str, Any]:
    """Run the mapper, stop its queue in the middle of the run, and return the tasks that wait there."""
    site.press("Run migration", KEYS["mapper"], db_alias)
    site.wait_for(lambda: get_record(KEYS["mapper"], db_alias).status == states.RUNNING)
    site.wait_for(lambda: count_processed("mapper", db_alias) >= 3 * BATCH)
    site.queues.pause("mapper")
    tasks = site.queues.wait_until_still("mapper")
    while any(shard.status == MigrationShard.RUNNING for shard in get_shards(KEYS["mapper"], db_alias)):
        tasks = site.queues.wait_until_still("mapper")
    tasks = site.queues.wait_until_still("mapper")  # who has released its shard may be about to enqueue it
    done = count_visits(db_alias, "mapper")
    assert 3 * BATCH <= done[1] < done.total() - BATCH, "not in the middle"
    assert done[1] == count_processed("mapper", db_alias)
    return tasks


def check_mapper(site: Site, db_alias: str, rows: int) -> None:
    """Wait for the end, and look that each row was visited once."""
    site.wait_for_status(KEYS["mapper"], db_alias, seconds=300)
    assert count_visits(db_alias, "mapper") == {1: rows}


SLOW = {**QUICK, "SITE_STEP_SECONDS": "0.01"}


@pytest.mark.parametrize("any_alias", [pytest.param("postgres", marks=needs_postgres), "firestore"], indirect=True)
def test_a_purge_that_leaves_a_worker_costs_time_only(any_alias):
    add_rows(any_alias, "mapper", 320)
    with serve(CLOUD_TASKS, **SLOW) as site:
        tasks = start_and_pause(site, any_alias)
        ranges = [name for name in tasks if get_task(tasks[name]).name == RUN_SHARD]
        assert len(ranges) > 1
        site.halt("mapper")
        path = f"{site.queues.get_path('mapper')}/tasks/{ranges[0]}"
        worker = threading.Thread(target=site.queues.client.run_task, kwargs={"name": path, "timeout": 60})
        worker.start()
        site.wait_for(lambda: site.read_halted("mapper"))
        site.queues.purge("mapper")
        lost_at = len(site.read_log())
        time.sleep(2.5)  # the watch was lost, too: so late it is missed
        site.go_on("mapper")
        site.queues.resume("mapper")
        worker.join()
        check_mapper(site, any_alias, 320)
        assert "has lost its worker or its task, and is enqueued again" in site.read_log()[lost_at:]


@pytest.mark.parametrize(("db_alias", "way"), [("datastore", "cron"), ("firestore", "command")])
def test_a_purge_that_leaves_nothing_is_recovered(clean_databases, run_manage, db_alias, way):
    add_rows(db_alias, "mapper", 200)
    with serve(CLOUD_TASKS, **SLOW, GAE_ENV="standard") as site:
        assert start_and_pause(site, db_alias)
        site.queues.purge("mapper")
        site.queues.resume("mapper")
        done = count_visits(db_alias, "mapper")
        time.sleep(4)  # three rounds of the watch: after them a run is believed stalled
        assert count_visits(db_alias, "mapper") == done
        assert site.queues.list("mapper") == {}
        if way == "cron":
            assert site.call_cron().status_code == 403
            answer = site.call_cron(**{"X-Appengine-Cron": "true"})
            assert answer.json() == {"recovered": [{"key": KEYS["mapper"], "database": db_alias}], "failed": []}
        else:
            environment = {**site.environment, "GAE_ENV": None}
            command = ["massmigration", "recover", f"--database={db_alias}", "--no-wait"]
            answer = run_manage(*command, env=environment)
            assert answer.returncode == 0, answer.stdout + answer.stderr
        check_mapper(site, db_alias, 200)


@pytest.mark.parametrize(
    ("db_alias", "way"), [pytest.param("postgres", "paused", marks=needs_postgres), ("firestore", "answers 503")]
)
def test_a_queue_that_rests_costs_time_only(clean_databases, db_alias, way):
    add_rows(db_alias, "mapper", 200)
    port = processes.get_free_port()
    with stand_between(port) as proxy, serve(CLOUD_TASKS, port=port, **SLOW) as site:
        assert start_and_pause(site, db_alias)
        if way == "answers 503":
            proxy.refuse = lambda task: UNAVAILABLE
            site.queues.resume("mapper")
        done = count_visits(db_alias, "mapper")
        time.sleep(4)
        assert count_visits(db_alias, "mapper") == done
        assert bool(proxy.refused) == (way == "answers 503")
        proxy.refuse = lambda task: None
        site.queues.resume("mapper")
        check_mapper(site, db_alias, 200)


@pytest.mark.parametrize("backend", [CLOUD_TASKS, DJANGAE])
def test_a_queue_that_is_not_there_at_launch_is_told_and_the_retry_works(clean_databases, backend):
    add_rows("datastore", "mapper", 40)
    with serve(backend, has_queues=False) as site:
        check_refusal(site)
        site.queues.create()
        site.press("Retry migration", KEYS["mapper"], "datastore")
        check_mapper(site, "datastore", 40)


def test_a_service_that_does_not_answer_at_launch_is_told_and_the_retry_works(clean_databases):
    add_rows("datastore", "mapper", 40)
    port = processes.get_free_port()
    with serve(CLOUD_TASKS, TASKS_EMULATOR_HOST=f"127.0.0.1:{port}") as site:
        check_refusal(site)
        with forward(port, os.environ[cloudtasks.HOST]):
            site.press("Retry migration", KEYS["mapper"], "datastore")
            check_mapper(site, "datastore", 40)


def check_refusal(site: Site) -> None:
    page = site.press("Run migration", KEYS["mapper"], "datastore")
    assert "could not be handed to its backend on database" in html.unescape(page)
    assert "Retry it when the problem is fixed." in page
    record = get_record(KEYS["mapper"], "datastore")
    assert (record.status, record.reason) == (states.FAILED, states.BACKEND_UNREACHABLE)
    assert record.error in html.unescape(page)
    assert count_visits("datastore", "mapper") == {0: 40}


@pytest.mark.parametrize("db_alias", ["datastore"])
def test_a_deploy_in_the_middle_of_a_run_goes_on_with_the_new_code(clean_databases, db_alias, tmp_path):
    """App Engine sends a task to the version that it is addressed to; when that is gone, nobody serves it."""
    add_rows(db_alias, "mapper", 200)
    port = processes.get_free_port()
    with stand_between(port) as proxy, serve(CLOUD_TASKS, port=port, **SLOW, GAE_VERSION="v1") as site:
        tasks = start_and_pause(site, db_alias)
        kinds = {name: get_task(task).name for name, task in tasks.items()}
        versions = {
            (kinds[name], task.app_engine_http_request.app_engine_routing.version) for name, task in tasks.items()
        }
        assert versions == {(RUN_SHARD, "v1"), (WATCH, "")}
        site.kill()
        shutil.copytree(CODE, tmp_path / "deployed")
        file = tmp_path / "deployed" / "0002_mapper.py"
        new_code = file.read_text().replace("row.flag = True", 'row.flag, row.note = True, "v2"')
        file.write_text(new_code.replace('["visits", "flag"]', '["visits", "flag", "note"]'))
        site.environment |= {
            "GAE_VERSION": "v2",
            "SITE_MIGRATIONS": "deployed",
            "PYTHONPATH": f"{tmp_path}:{site.environment['PYTHONPATH']}",
        }
        old = {name for name, kind in kinds.items() if kind == RUN_SHARD}
        proxy.refuse = lambda task: 404 if task in old else None
        site.start()
        done = count_visits(db_alias, "mapper")[1]
        site.queues.resume("mapper")
        check_mapper(site, db_alias, 200)
        assert set(proxy.refused) == old
    notes = Counter(row.note for row in Row.objects.using(db_alias).filter(name="mapper"))
    assert notes == {"": done, "v2": 200 - done}


def get_task(task: Any) -> payloads.Task:
    return payloads.load(task.app_engine_http_request.body)
