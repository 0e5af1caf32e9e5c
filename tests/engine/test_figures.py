"""The groups of figures that a progress is built from: each follows from what it is given."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta

import pytest
from django.utils import timezone

from massmigration.engine import figures
from massmigration.engine.progress import Progress
from massmigration.engine.sums import ShardSums
from massmigration.models import MigrationAttempt, MigrationShard
from massmigration.recorder import FailureCounts

GROUPS = (
    figures.AttemptFigures,
    figures.Counts,
    figures.Total,
    figures.Pace,
    figures.ShardFigures,
    figures.Wait,
)


def test_no_two_groups_hold_the_same_figure_and_each_is_shown():
    names = [name for group in GROUPS for name in group._fields]
    assert len(names) == len(set(names))
    assert set(names) < {field.name for field in fields(Progress)}


@pytest.mark.parametrize(
    ("status", "total", "is_estimate", "processed", "expected"),
    [
        ("running", 200, False, 50, (200, False, 25.0)),
        ("running", 200, False, 200, (200, False, 99.0)),
        ("running", 200, True, 201, (201, True, 99.0)),
        ("applied", 200, True, 201, (201, False, 100.0)),
        ("running", None, False, 7, (None, None, None)),
        ("applied", None, False, 7, (None, None, 100.0)),
        ("running", 0, False, 0, (0, False, 0.0)),
    ],
)
def test_the_total_is_never_below_what_was_visited(status, total, is_estimate, processed, expected):
    attempt = MigrationAttempt(total=total, total_is_estimate=is_estimate)
    assert figures.get_total(status, attempt, processed) == expected


def test_counts_are_those_that_a_finished_attempt_has_kept():
    sums, failures = ShardSums(processed=5, changed=3), FailureCounts(open=2, acceptable=1)
    counts = figures.get_counts(MigrationAttempt(), sums, failures, knows_changed=True)
    assert counts == (5, 3, 2, 1)
    kept = MigrationAttempt(processed=7, changed=None)
    assert figures.get_counts(kept, sums, failures, knows_changed=True) == (7, None, 2, 1)
    assert figures.get_counts(MigrationAttempt(), sums, failures, knows_changed=False).changed is None


def test_the_pace_is_the_workers_and_that_of_the_whole_attempt_once_it_is_over():
    now = timezone.now()
    attempt = MigrationAttempt(started_at=now - timedelta(seconds=40), finished_at=now)
    sums = ShardSums(live=[MigrationShard(kind=MigrationShard.RANGE, rate=rate) for rate in (3.0, 7.0)])
    assert figures.get_pace("running", attempt, sums, 100, 300) == (10.0, 20.0)
    assert figures.get_pace("running", attempt, sums, 100, None) == (10.0, None)
    assert figures.get_pace("enqueued", attempt, sums, 0, 300) == (10.0, None)
    assert figures.get_pace("applied", attempt, sums, 100, 100) == (2.5, None)
    assert figures.get_pace("running", attempt, ShardSums(), 100, 300) == (None, None)


def test_the_number_of_shards_is_unknown_until_they_are_planned():
    assert figures.get_shard_figures(ShardSums(ranges=3, ranges_done=1))[:2] == (None, None)
    assert figures.get_shard_figures(ShardSums(ranges=3, ranges_done=1, has_plan=True))[:2] == (3, 1)
