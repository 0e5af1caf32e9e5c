"""The rate that the progress bar shows."""

from __future__ import annotations

import pytest

from massmigration.management.display import MEMORY_SECONDS, Speedometer


def measure(*counts):
    speedometer = Speedometer()
    for now, count in counts:
        speedometer.learn(count, now)
    return speedometer.get_rate()


@pytest.mark.parametrize(
    ("counts", "rate"),
    [
        ([], None),
        ([(0, 100)], None),
        ([(0, 100), (0.5, 200)], None),
        ([(0, 100), (2, 300)], 100),
        ([(0, 100), (1, 300), (4, 500)], 100),
        ([(0, 100), (2, 100)], None),
        ([(0, 500), (2, 900), (3, 0), (5, 20)], 10),
    ],
)
def test_is_that_of_the_last_seconds(counts, rate):
    assert measure(*counts) == rate


def test_forgets_what_is_long_ago():
    fast = [(second, second * 1_000) for second in range(10)]
    slow = [(10 + second, 9_000 + second) for second in range(int(MEMORY_SECONDS) + 2)]
    assert measure(*fast, *slow) == pytest.approx(1, abs=0.1)
