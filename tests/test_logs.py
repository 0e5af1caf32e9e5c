"""The log: one line for each event, slice and failure, with fields, at the right level, and no line per row."""

from __future__ import annotations

import json
import logging
import math
import re
import uuid
from datetime import date
from decimal import Decimal

import pytest
from django.db import OperationalError, transaction

from massmigration import (
    BaseMigration,
    CustomMigration,
    MapperMigration,
    RetryLater,
    SimpleMigration,
    executor,
    logs,
    recorder,
    states,
)
from massmigration.backends.base import BaseBackend
from massmigration.engine import slice_log
from massmigration.engine.slice import Slice
from massmigration.engine.slice_log import FAILURE_LINES
from massmigration.exceptions import BackendUnreachable
from massmigration.executor.accept import accept
from massmigration.recorder import Author
from tests.engine.support import AUTHOR, change, claim_range, make, run, start, work
from tests.markdown import read
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(transaction=True, databases=["default"])

ALIAS = "default"
KEY = "testapp:0001_test"
ANNA = Author("anna", "admin", user_id="7")


@pytest.fixture
def lines(caplog):
    """Return the lines so far, optionally those about one event only."""
    caplog.set_level(logging.DEBUG, logger="massmigration")
    slice_log._logged_at.clear()

    def get(event: str | None = None, *, level: int = logging.INFO):
        records = [record for record in caplog.records if record.name == "massmigration" and record.levelno >= level]
        return [record for record in records if event in (None, get_fields(record).get("event"))]

    return get


def get_fields(record: logging.LogRecord) -> dict:
    return getattr(record, "json_fields", {})


def make_cities(count: int) -> None:
    City.objects.using(ALIAS).bulk_create(City(name=f"City {number}") for number in range(count))


class Count(MapperMigration):
    update_fields = ["visits"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


class Picky(Count):
    bad = ("City 3",)

    def operation(self, city, db_alias):
        password = "-".join(["correct", "horse"])  # noqa: F841  (no line may show it)
        if city.name in self.bad:
            raise ValueError("no such zone")
        city.visits += 1


def test_fields_are_what_json_knows_and_labels_are_texts():
    attempt = uuid.uuid4()
    extra = logs.fields(
        key=KEY,
        db_alias=ALIAS,
        attempt=attempt,
        rows=3,
        rate=2.34567,
        nothing=None,
        empty="",
        no=False,
        zero=0,
        day=date(2026, 1, 2),
        price=Decimal("1.50"),
        infinite=math.inf,
        names=("a", None, 1),
        more={1: attempt},
    )
    assert extra["json_fields"] == {
        "key": KEY,
        "db_alias": ALIAS,
        "attempt": str(attempt),
        "rows": 3,
        "rate": 2.346,
        "no": False,
        "zero": 0,
        "day": "2026-01-02",
        "price": "1.50",
        "names": ["a", None, 1],
        "more": {"1": str(attempt)},
    }
    assert extra["labels"] == {
        "massmigration_key": KEY,
        "massmigration_database": ALIAS,
        "massmigration_attempt": str(attempt),
    }
    json.dumps(extra, allow_nan=False)


def act(action: str, migration) -> None:
    if action in ("pause", "cancel", "reset"):
        getattr(executor, action)(migration.key, ALIAS, ANNA)
    elif action == "fake":
        executor.fake(migration, ALIAS, ANNA)
    else:
        getattr(executor, action)(migration, ALIAS, ANNA, enqueue=False)


BEFORE = {
    "start": [],
    "pause": ["start"],
    "resume": ["start", "pause"],
    "retry": ["start", "fail"],
    "recover": ["start"],
    "cancel": ["start"],
    "restart": ["start", "pause"],
    "fake": [],
    "reset": ["start", "cancel"],
}


@pytest.mark.parametrize("action", BEFORE)
def test_every_action_of_a_person_is_a_line(lines, caplog, action):
    make_cities(1)
    migration = make(Count)
    for before in BEFORE[action]:
        if before == "fail":
            recorder.move(KEY, ALIAS, "fail", AUTHOR)
        else:
            act(before, migration)
    record = recorder.get_record(KEY, ALIAS)
    caplog.clear()
    act(action, migration)
    (line,) = lines()
    assert line.levelno == (logging.WARNING if action == "recover" else logging.INFO)
    assert line.getMessage() == f"{KEY} {states.ACTIONS[action].done} on database 'default' by anna (admin)"
    attempt = (recorder.get_record(KEY, ALIAS) or record).attempt_uuid
    expected = {"event": action, "key": KEY, "db_alias": ALIAS, "actor": "anna", "origin": "admin", "user_id": "7"}
    if status := states.MOVES[action].target:
        expected["status"] = status
    if attempt is not None:
        expected["attempt"] = str(attempt)
    assert get_fields(line) == expected
    assert line.labels["massmigration_key"] == KEY


def test_an_accept_is_a_line_with_its_reason(lines, caplog):
    assert {*BEFORE, "accept"} == set(states.PERSONS_ACTIONS)
    make_cities(1)
    migration = make(Count)
    change(migration, on_error="skip", operation=lambda city, db_alias: 1 / 0)
    act("start", migration)
    work(migration, ALIAS)
    caplog.clear()
    accept(migration, ALIAS, ANNA, "It is gone", enqueue=False)
    accepted, proceeded = lines()
    assert accepted.getMessage() == (
        f"{KEY} has failures that were accepted on database 'default' by anna (admin): 1 object: It is gone"
    )
    fields = get_fields(accepted)
    assert (fields["event"], fields["actor"], fields["detail"]) == ("accept", "anna", "1 object: It is gone")
    assert (accepted.levelno, proceeded.levelno) == (logging.INFO, logging.INFO)
    assert proceeded.getMessage() == f"{KEY} continues to its end on database 'default' by anna (admin)"


def test_begin_and_finish_are_lines_of_the_worker(lines):
    make_cities(3)
    record = run(Count, ALIAS)
    for event, status in (("begin", "running"), ("finish", "applied")):
        (line,) = lines(event)
        fields = get_fields(line)
        assert line.levelno == logging.INFO
        assert fields["status"] == status
        assert fields["origin"] == "worker"
        assert fields["attempt"] == str(record.attempt_uuid)
        assert " by " not in line.getMessage()


def test_a_finish_with_a_warning_is_a_warning(lines):
    class Idle(Count):
        def operation(self, city, db_alias):
            pass

    make_cities(1)
    run(Idle, ALIAS)
    (line,) = lines("finish")
    assert line.levelno == logging.WARNING
    assert "No row was changed" in line.getMessage()
    assert "No row was changed" in get_fields(line)["detail"]


def test_what_is_rolled_back_is_no_line(lines):
    with transaction.atomic(using=ALIAS):
        executor.start(make(Count), ALIAS, ANNA, enqueue=False)
        transaction.set_rollback(True, using=ALIAS)
    assert lines() == []


def test_values_of_parameters_stay_out(lines):
    with transaction.atomic(using=ALIAS):
        recorder.add_event(KEY, ALIAS, "start", ANNA, parameters={"token": "s3cret", "limit": 5})
    (line,) = lines()
    assert get_fields(line)["parameters"] == ["limit", "token"]
    assert "s3cret" not in repr(vars(line))


def test_ten_thousand_rows_are_a_few_lines(lines):
    make_cities(10_000)
    progress = run(Count, ALIAS)
    assert progress.processed == 10_000
    slices = lines("slice")
    assert len(lines(level=logging.DEBUG)) < 40
    assert {get_fields(line)["shard_kind"] for line in slices} == {"plan", "range", "finish"}
    assert sum(get_fields(line)["rows"] for line in slices) == 10_000
    assert sum(get_fields(line)["changed"] for line in slices) == 10_000
    assert not lines(level=logging.WARNING)


def test_a_slice_says_what_it_did(lines):
    make_cities(10)
    migration = make(Count)
    start(migration, ALIAS)
    shard = claim_range(migration, ALIAS, worker="anton")
    assert Slice(shard, migration, ALIAS).run() == "done"
    line = lines("slice")[-1]
    fields = get_fields(line)
    assert line.levelno == logging.INFO
    assert {name: fields[name] for name in ("key", "db_alias", "shard", "shard_kind", "worker", "outcome")} == {
        "key": KEY,
        "db_alias": ALIAS,
        "shard": shard.pk,
        "shard_kind": "range",
        "worker": "anton",
        "outcome": "done",
    }
    assert fields["rows"] == fields["changed"] == shard.processed > 0
    assert fields["batches"] == shard.batches > 0
    assert fields["failures"] == 0
    assert fields["seconds"] > 0
    assert fields["rate"] == pytest.approx(fields["rows"] / fields["seconds"], rel=0.5)
    assert "cursor_before" not in fields
    assert fields["cursor_after"] == shard.cursor
    assert f"{KEY}: slice of shard {shard.pk} ended with done after {shard.processed} rows in" in line.getMessage()


def test_the_next_slice_counts_from_where_the_last_one_ended(lines, settings):
    settings.MASSMIGRATION_SLICE_SECONDS = 0.001
    make_cities(20)

    class Migration(Count):
        batch_size = 5
        serial = True

    run(Migration, ALIAS)
    visits = [get_fields(line) for line in lines("slice") if get_fields(line)["shard_kind"] == "range"]
    assert [visit["outcome"] for visit in visits] == ["time_up"] * (len(visits) - 1) + ["done"]
    assert sum(visit["rows"] for visit in visits) == 20
    assert len(visits) > 2
    assert [visit.get("cursor_before") for visit in visits[1:]] == [visit["cursor_after"] for visit in visits[:-1]]


def test_a_slice_that_is_stopped_or_loses_its_shard_says_so(lines):
    make_cities(10)
    migration = make(Count)
    start(migration, ALIAS)
    shard = claim_range(migration, ALIAS)
    Slice(shard, migration, ALIAS, should_stop=lambda: True).run()
    assert get_fields(lines("slice")[-1])["outcome"] == "stopped"

    class Taken(Count):
        def operation(self, city, db_alias):
            from massmigration.models import MigrationShard

            MigrationShard.objects.using(db_alias).update(fence=99)

    shard = claim_range(migration, ALIAS)
    Slice(shard, make(Taken), ALIAS).run()
    line = lines("slice")[-1]
    assert get_fields(line)["outcome"] == "lost"
    assert "was taken from worker" in get_fields(line)["detail"]
    assert line.levelno == logging.INFO


def test_a_rest_is_told_once_a_minute(lines):
    class Resting(SimpleMigration):
        asked = 0

        def operation(self, db_alias):
            type(self).asked += 1
            if self.asked < 4:
                raise RetryLater(0.1, "the quota")

    assert run(Resting, ALIAS).status == "applied"
    rests = [line for line in lines("slice", level=logging.DEBUG) if get_fields(line)["outcome"] == "resting"]
    assert [line.levelno for line in rests] == [logging.INFO, logging.DEBUG, logging.DEBUG]
    assert get_fields(rests[0])["rest_seconds"] == 0.1
    assert get_fields(rests[0])["detail"] == "the quota"
    assert not lines(level=logging.WARNING)


def test_trouble_that_passes_is_a_warning(lines):
    class Shaky(Count):
        transient_errors = (TimeoutError,)
        calls = 0

        def operation(self, city, db_alias):
            type(self).calls += 1
            if self.calls == 1:
                raise TimeoutError("slow service")
            city.visits += 1

    make_cities(3)
    assert run(Shaky, ALIAS).status == "applied"
    (line,) = lines(level=logging.WARNING)
    assert line.levelno == logging.WARNING
    assert "slow service" in line.getMessage()
    assert line.exc_info is None


def test_a_slice_that_its_caller_has_to_repeat_is_a_warning(lines, settings):
    settings.MASSMIGRATION_MAX_RETRIES = 0

    class Down(Count):
        is_down = False

        def get_queryset(self, db_alias):
            if self.is_down:
                raise OperationalError("database is locked")
            return super().get_queryset(db_alias)

    make_cities(3)
    migration = make(Down)
    start(migration, ALIAS)
    shard = claim_range(migration, ALIAS)
    change(migration, is_down=True)
    with pytest.raises(OperationalError):
        Slice(shard, migration, ALIAS).run()
    line = lines("slice")[-1]
    assert line.levelno == logging.WARNING
    assert get_fields(line)["outcome"] == "broken_off"
    assert get_fields(line)["detail"] == "OperationalError: database is locked"
    assert not lines(level=logging.ERROR)


class BrokenQueryset(Count):
    def get_queryset(self, db_alias):
        if self.is_started:
            raise LookupError("no such table")
        return super().get_queryset(db_alias)

    is_started = False

    def before_start(self, db_alias):
        type(self).is_started = True


class BrokenVerify(Count):
    def verify(self, db_alias):
        raise ZeroDivisionError("by zero")


class RefusingVerify(Count):
    def verify(self, db_alias):
        return "Three cities have no slug."


class Skipping(Picky):
    on_error = "skip"


class SkippingTooMany(Skipping):
    bad = ("City 1", "City 3")
    max_failures = 1


class BrokenSimple(SimpleMigration):
    def operation(self, db_alias):
        raise KeyError("x")


class BrokenItems(CustomMigration):
    def get_items(self, shard, cursor, db_alias):
        yield 1, "a"

    def operation(self, item, db_alias):
        raise IndexError("out")


class Launched(BaseMigration):
    def launch(self, db_alias):
        raise RuntimeError("down")


class LaunchedAndMarked(BaseMigration):
    def launch(self, db_alias):
        try:
            raise RuntimeError("down")
        except RuntimeError as error:
            self.mark_as_errored(db_alias, error)


@pytest.mark.parametrize(
    ("definition", "reason", "error_class"),
    [
        (Picky, "operation_error", "builtins.ValueError"),
        (BrokenQueryset, "operation_error", "builtins.LookupError"),
        (BrokenSimple, "operation_error", "builtins.KeyError"),
        (BrokenItems, "operation_error", "builtins.IndexError"),
        (BrokenVerify, "verify_failed", "builtins.ZeroDivisionError"),
        (RefusingVerify, "verify_failed", "massmigration.engine.refusals.FinishRefused"),
        (Skipping, "failures_open", "massmigration.engine.refusals.FinishRefused"),
        (SkippingTooMany, "max_failures", "builtins.ValueError"),
        (Launched, "operation_error", "builtins.RuntimeError"),
        (LaunchedAndMarked, "operation_error", "builtins.RuntimeError"),
    ],
)
def test_a_final_failure_is_one_error_with_its_traceback(lines, definition, reason, error_class):
    make_cities(5)
    progress = run(definition, ALIAS)
    assert progress.status == "failed"
    (line,) = lines(level=logging.ERROR)
    fields = get_fields(line)
    assert fields["event"] == "fail"
    assert fields["status"] == "failed"
    assert fields["reason"] == reason
    assert fields["attempt"] == str(progress.attempt_uuid)
    assert fields["detail"] == progress.error
    assert fields["error_class"] == error_class
    assert line.getMessage() == f"{KEY} failed on database 'default': {progress.error}"
    assert line.exc_info and logs.get_class_name(line.exc_info[1]) == error_class
    text = logging.Formatter().format(line)
    assert "Traceback (most recent call last)" in text
    assert "correct-horse" not in repr(fields) + text
    if definition not in (LaunchedAndMarked,):
        assert fields["shard"]
        assert fields["worker"]


def test_the_error_names_the_object(lines):
    make_cities(5)
    run(Picky, ALIAS)
    (line,) = lines(level=logging.ERROR)
    city = City.objects.using(ALIAS).get(name="City 3")
    assert get_fields(line)["object_key"] == str(city.pk)
    assert "(object 'City 3' with key" in line.getMessage()
    outcomes = [get_fields(line)["outcome"] for line in lines("slice")]
    assert outcomes[-1] == "failed"


class Wordy(SimpleMigration):
    def operation(self, db_alias):
        try:
            raise KeyError("y" * 300_000)
        except KeyError as error:
            raise ValueError("x" * 300_000) from error


class Endless(SimpleMigration):
    def operation(self, db_alias):
        self.go_up()

    def go_up(self):
        self.go_down()  # one function alone would be told as "repeated 900 more times"

    def go_down(self):
        self.go_up()


@pytest.mark.parametrize(("definition", "name"), [(Wordy, "ValueError"), (Endless, "RecursionError")])
def test_an_error_of_any_length_is_an_entry(lines, definition, name):
    assert run(definition, ALIAS).status == "failed"
    (line,) = lines(level=logging.ERROR)
    text = logging.Formatter().format(line)
    assert len(text) + len(json.dumps(get_fields(line))) < 100_000
    assert line.exc_info[0].__name__ == name
    assert re.search(rf"^{name}: ", text, re.MULTILINE)
    assert "in operation" in text or "in go_up" in text
    assert get_fields(line)["error_class"] == f"builtins.{name}"


def test_a_retry_that_fails_again_is_one_more_error(lines):
    make_cities(5)
    migration = make(Picky)
    run(migration, ALIAS)
    executor.retry(migration, ALIAS, AUTHOR, enqueue=False)
    work(migration, ALIAS)
    assert len(lines(level=logging.ERROR)) == 2


def test_an_object_that_is_passed_over_is_a_warning(lines):
    make_cities(5)
    run(Skipping, ALIAS)
    (line,) = lines("failure")
    fields = get_fields(line)
    assert line.levelno == logging.WARNING
    assert line.exc_info is None, "Error Reporting would take it for an error"
    assert fields["error_class"] == "builtins.ValueError"
    assert fields["object_key"] == str(City.objects.using(ALIAS).get(name="City 3").pk)
    (failure,) = recorder.get_failures(recorder.get_record(KEY, ALIAS).attempt_uuid, ALIAS)
    assert fields["failure"] == failure.pk
    assert "the object 'City 3' with key" in line.getMessage()
    assert "ValueError: no such zone" in line.getMessage()
    assert sum(get_fields(line)["failures"] for line in lines("slice")) == 1


def test_a_hopeless_run_does_not_flood_the_log(lines):
    class Hopeless(Skipping):
        serial = True
        max_failures = 1_000
        bad = tuple(f"City {number}" for number in range(FAILURE_LINES + 20))

    make_cities(FAILURE_LINES + 20)
    run(Hopeless, ALIAS)
    warnings = lines("failure")
    assert len(warnings) == FAILURE_LINES
    assert "counted only" in warnings[-1].getMessage()
    assert "counted only" not in warnings[0].getMessage()
    assert sum(get_fields(line)["failures"] for line in lines("slice")) == FAILURE_LINES + 20


class DownBackend(BaseBackend):
    has_workers = True

    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        raise ConnectionError("connection refused")


class Queued(Count):
    backend = f"{__name__}.DownBackend"


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_queue_that_is_down_is_one_error(lines, caplog, is_nested):
    make_cities(1)
    if is_nested:
        with transaction.atomic(using=ALIAS):
            executor.start(make(Queued), ALIAS, ANNA)
    else:
        with pytest.raises(BackendUnreachable):
            executor.start(make(Queued), ALIAS, ANNA)
    (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert get_fields(line)["reason"] == "backend_unreachable"
    assert line.exc_info[0] is ConnectionError
    assert recorder.get_record(KEY, ALIAS).status == "failed"


def test_every_line_is_json_and_harmless_to_a_plain_formatter(lines):
    make_cities(5)
    run(Skipping, ALIAS)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    for line in lines():
        assert KEY in plain.format(line)
        json.dumps(get_fields(line), allow_nan=False)
        assert all(isinstance(value, str) for value in line.labels.values())
        assert "json_fields" not in plain.format(line)


def test_the_fields_events_and_outcomes_are_documented_and_no_other(lines):
    class Resting(SimpleMigration):
        asked = False

        def operation(self, db_alias):
            if not self.asked:
                type(self).asked = True
                raise RetryLater(0.1)

    make_cities(5)
    run(Skipping, ALIAS)
    run(make(Resting, "0002_rests"), ALIAS)
    with transaction.atomic(using=ALIAS):
        recorder.add_event(KEY, ALIAS, "start", ANNA, parameters={"limit": 5})
    migration = make(Count, "0003_moves")
    start(migration, ALIAS)
    Slice(claim_range(migration, ALIAS), migration, ALIAS).run()
    found = {name for line in lines() for name in get_fields(line)}
    page = read("logging.md")
    documented = page.get_section("Fields").terms
    assert set(documented) == found | {"cursor_before"}
    assert len(documented) == len(set(documented))
    queries = "\n".join(block.code for block in page.blocks)
    assert set(re.findall(r"jsonPayload\.(\w+)", queries)) <= set(documented) | {"message"}
    assert set(re.findall(r"labels\.(massmigration_\w+)", queries)) == set(logs.LABELS.values())
    trouble = {
        "repeat",
        "after_commit",
        "taken_over",
        "lost",
        "no_answer",
        "missing",
        "unreachable",
        "other_version",
        "change_file",
    }
    events = {*states.MOVES, "slice", "failure", *trouble}
    assert set(re.findall(r'jsonPayload\.event="(\w+)"', queries)) <= events
    assert set(page.get_section("Levels").terms) == events


def test_the_numbers_in_the_documentation_are_the_real_ones():
    text = " ".join(read("logging.md").path.read_text(encoding="utf-8").split())
    assert f"tells its first {FAILURE_LINES} failures" in text
    assert f"more than {logs.TRACEBACK_LIMIT:,} characters is cut" in text
    assert f"to {logs.TEXT_LIMIT:,} characters, the frames to the last {logs.FRAMES_LEFT}" in text
    assert slice_log.REST_LINE_SECONDS == 60, "once a minute"
