"""Commands and pages say the same of a run, in the same words and numbers."""

from __future__ import annotations

import datetime
import re
from io import StringIO

import pytest
from django.core.management.base import BaseCommand
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import strip_tags

from massmigration import states, wording
from massmigration.admin.rows import Row
from massmigration.api import Progress
from massmigration.management import listing, report
from massmigration.management.display import Display

NUMBERS = {
    "processed": 58_000,
    "changed": 57_990,
    "failed": 2,
    "total": 234_908,
    "total_is_estimate": True,
    "percent": 24.7,
    "rate": 41_200.4,
    "eta_seconds": 3_725.2,
    "shards": 8,
    "shards_done": 1,
    "workers_alive": 3,
    "attempt_uuid": "1",
}


def make(status: str, unit: str = "rows", **values) -> Progress:
    return Progress("places:0002_slugs", "places", "0002_slugs", "default", status, unit=unit, **values)


def read_page(progress: Progress) -> list[str]:
    """Return the texts that the pages show of a migration's status and progress."""
    names = ("includes/status.html", "includes/progress.html")
    html = "".join(render_to_string(f"admin/massmigration/{name}", {"row": Row(progress)}) for name in names)
    html = re.sub(r"<progress.*?</progress>", "", html)
    return [text for part in re.split(r"<[^>]*>| · ", html) if (text := strip_tags(part).strip())]


def read_list(progress: Progress) -> list[str]:
    """Return what ``showmassmigrations`` says of it, part by part."""
    output = StringIO()
    listing.write_text(BaseCommand(stdout=output, no_color=True), [progress], ["places"])
    return output.getvalue().splitlines()[1].partition("0002_slugs  ")[2].removesuffix(": lost").split(", ")


def read_line(progress: Progress) -> list[str]:
    """Return what a command shows while it runs, part by part."""
    lines: list[str] = []
    Display(lines.append).show(progress)
    return lines[0].partition("  ")[2].split(", ")


def split_percentage(parts: list[str]) -> list[str]:
    """Take what stands in brackets for a text of its own: pages show it beside the bar."""
    return [text for part in parts for text in re.split(r" \((\d+ %)\)", part) if text]


@pytest.mark.parametrize("unit", ["rows", "items", "objects", ""])
@pytest.mark.parametrize("status", list(states.LABELS))
def test_a_list_says_nothing_that_a_page_says_otherwise(status, unit):
    progress = make(status, unit, error="lost", **NUMBERS)
    page, parts = read_page(progress), split_percentage(read_list(progress))
    assert parts[0] == states.LABELS[status]
    assert set(parts) <= set(page)


@pytest.mark.parametrize("unit", ["rows", "items", "objects", ""])
@pytest.mark.parametrize("status", states.ACTIVE)
def test_a_line_while_it_runs_says_what_the_page_says(status, unit):
    progress = make(status, unit, **NUMBERS)
    page, parts = read_page(progress), split_percentage(read_line(progress))
    assert sorted({*parts, "24 %", status}) == sorted(page)


def test_the_words_of_a_run():
    assert read_line(make(states.RUNNING, **NUMBERS)) == [
        "58,000 of about 234,908 rows (24 %)",
        "2 failed",
        "41,200 rows/s",
        "1 h 2 min left",
        "1 of 8 key ranges",
        "3 workers",
    ]
    one = {"processed": 1, "total": 1, "shards": 1, "workers_alive": 1, "rate": 0.5}
    assert read_line(make(states.RUNNING, "items", **one)) == ["1 of 1 item", "0.5 items/s", "0 of 1 shard", "1 worker"]
    assert read_line(make(states.ENQUEUED)) == ["starting"]
    assert read_line(make(states.RUNNING)) == ["running"]


@pytest.mark.parametrize(
    "values",
    [
        {"stalled": True, "stalled_since": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)},
        {"stalled": True},
        {"waiting_for": "the replica"},
    ],
)
def test_why_nothing_moves_is_said_alike(values):
    progress = make(states.RUNNING, **values)
    (text,) = {wording.Run.of(progress).trouble}
    assert text in read_page(progress)
    assert text in read_list(progress)
    assert read_line(progress)[0] == text


def test_a_reason_to_wait_stays_on_one_line_and_steers_no_terminal():
    progress = make(states.RUNNING, waiting_for="the quota\nis used up\x1b[2J")
    assert wording.Run.of(progress).trouble == "waiting: the quota is used up\\x1b[2J"


def test_applied_without_running_is_said_alike():
    progress = make(states.APPLIED, faked=True, percent=100.0)
    assert "applied without running it" in read_page(progress)
    assert read_list(progress) == ["applied without running it"]


def test_the_end_of_a_run_is_said_alike():
    now = timezone.now()
    values = NUMBERS | {"started_at": now - datetime.timedelta(seconds=90), "finished_at": now, "percent": 100.0}
    (line,) = report.describe_end(make(states.APPLIED, **values), BaseCommand(no_color=True).style)
    parts = line.partition(": ")[2].split(", ")
    assert parts == ["58,000 rows", "57,990 changed", "2 failed", "1 min 30 s", "41,200 rows/s"]
    assert set(parts[:3]) <= set(read_page(make(states.APPLIED, **values)))


@pytest.mark.parametrize("reason", states.REASONS)
def test_the_reason_of_a_failure_is_said_alike(reason):
    text = states.REASONS[reason]
    assert text in read_page(make(states.FAILED, reason=reason))
    assert wording.describe_reason(reason) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1.26, "1.3 s"),
        (42.4, "42 s"),
        (90, "1 min 30 s"),
        (1_800, "30 min"),
        (11_100, "3 h 5 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations(seconds, text):
    assert wording.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, ""),
        ({"processed": 0}, ""),
        ({"processed": 1}, "1 row"),
        ({"processed": 1, "total": 1}, "1 of 1 row"),
        ({"processed": 1_200, "total": 5_000}, "1,200 of 5,000 rows"),
        ({"processed": 1_200, "total": 5_000, "total_is_estimate": True}, "1,200 of about 5,000 rows"),
    ],
)
def test_counts(values, text):
    assert wording.Run(states.RUNNING, **values).rows == text


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((0, 0, False), "no failure was left to accept"),
        ((1, 0, False), "1 failure was accepted"),
        ((1_200, 1, False), "1,200 failures were accepted; 1 stays open"),
        ((2, 3, False), "2 failures were accepted; 3 stay open"),
        ((2, 0, True), "2 failures were accepted; the run continues to its end"),
    ],
)
def test_what_came_of_accepting(counts, text):
    accepted, left, goes_on = counts
    assert wording.describe_accepted(accepted, left, goes_on=goes_on) == text


def test_a_summary_counts_statuses_in_their_order():
    statuses = [states.NOT_RUN, states.APPLIED, states.RUNNING, states.APPLIED]
    assert wording.summarize(statuses) == "1 running, 2 applied, 1 not run"
    assert wording.summarize(statuses, 1) == "1 running, 2 applied, 1 not run, 1 of them stalled"


def test_a_rate_that_was_measured_gives_the_time_that_is_left():
    run = wording.Run.of(make(states.RUNNING, processed=100, total=300, rate=1.0, eta_seconds=200.0), rate=20.0)
    assert run.pace[:2] == ["20 rows/s", "10 s left"]
