"""The size of a batch follows its time: it grows step by step, shrinks at once, and keeps to its bounds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from massmigration.engine.pacing import FIRST_SIZE, GROWTH, LARGEST_SIZE, LARGEST_WINDOW, QUICK_GROWTH, Pacer


def work(pacer, seconds_per_object, batches):
    """Work batches of the pacer's size and return the sizes that it chose."""
    sizes = []
    for _ in range(batches):
        pacer.learn_batch(pacer.size, pacer.size * seconds_per_object)
        sizes.append(pacer.size)
    return sizes


@pytest.mark.parametrize("seconds_per_object", [0.0001, 0.001, 0.01, 0.05])
def test_a_batch_comes_to_take_its_target_time(seconds_per_object):
    pacer = Pacer(0.5, None, None)
    assert pacer.size == FIRST_SIZE
    sizes = work(pacer, seconds_per_object, 30)
    assert sizes[-1] * seconds_per_object == pytest.approx(0.5, rel=0.1)
    assert pacer.rate == pytest.approx(1 / seconds_per_object)


def test_it_doubles_while_batches_are_very_quick_and_then_grows_by_a_quarter():
    sizes = [FIRST_SIZE, *work(Pacer(0.5, None, None), 0.0002, 12)]
    for old, new in itertools.pairwise(sizes):
        factor = QUICK_GROWTH if old * 0.0002 < 0.5 / 4 else GROWTH
        assert new <= old * factor + 1
    assert sizes[1] == FIRST_SIZE * 2 + 1
    assert sizes[-1] == 2500


def test_it_shrinks_at_once_when_a_batch_took_far_too_long():
    pacer = Pacer(0.5, None, 10_000)
    work(pacer, 0.00001, 5)
    size = pacer.size
    pacer.learn_batch(size, 50.0)
    assert pacer.size == int(size * 0.5 / 50)
    pacer.learn_batch(pacer.size, 0.001)
    assert pacer.size <= size * 0.5 / 50 * QUICK_GROWTH + 1  # one quick batch does not bring the old size back


def test_a_single_slow_object_makes_batches_of_one_and_they_recover():
    pacer = Pacer(0.5, None, None)
    pacer.learn_batch(100, 6000)
    assert pacer.size == 1
    assert work(pacer, 60, 3) == [1, 1, 1]
    assert work(pacer, 0.001, 40)[-1] == pytest.approx(500, rel=0.1)


def test_it_keeps_to_the_ceiling():
    assert work(Pacer(0.5, None, None), 0.0, 30)[-1] == LARGEST_SIZE
    assert work(Pacer(0.5, None, None, largest_size=5_000), 0.0, 30)[-1] == 5_000


def test_an_authors_batch_size_is_kept():
    pacer = Pacer(0.5, 37, 5000)
    assert [pacer.size, *work(pacer, 0.0, 5), *work(pacer, 100, 5)] == [37] * 11
    assert pacer.rate > 0


def test_it_begins_where_the_last_worker_ended():
    assert Pacer(0.5, None, 4321).size == 4321


def test_a_batch_that_ended_with_its_range_says_little():
    pacer = Pacer(0.5, None, 1000)
    pacer.learn_batch(3, 0.001)
    assert 1000 <= pacer.size <= 1001
    pacer.learn_batch(0, 10.0)
    assert 1000 <= pacer.size <= 1001
    assert pacer.rate == pytest.approx(3000)


def test_windows_grow_while_they_hold_little_and_shrink_while_they_are_full_or_slow():
    pacer = Pacer(0.5, None, None)
    assert pacer.window == FIRST_SIZE
    for _ in range(30):
        pacer.learn_window(False, 0.01)
    assert pacer.window == LARGEST_WINDOW
    pacer.learn_window(False, 0.4)
    assert pacer.window == LARGEST_WINDOW // 2
    pacer.learn_window(True, 0.01)
    assert pacer.window == LARGEST_WINDOW // 4
    for _ in range(30):
        pacer.learn_window(True, 0.01)
    assert pacer.window == pacer.size
    work(pacer, 0.0001, 10)
    assert pacer.window >= pacer.size


@given(
    st.lists(st.tuples(st.integers(0, 30_000), st.floats(0, 1e5), st.booleans())),
    st.none() | st.integers(1, LARGEST_SIZE),
)
def test_size_and_window_keep_to_their_bounds_whatever_happens(batches, first_size):
    pacer = Pacer(0.5, None, first_size)
    for count, seconds, is_full in batches:
        pacer.learn_batch(min(count, pacer.size), seconds)
        pacer.learn_window(is_full, seconds)
        assert 1 <= pacer.size <= LARGEST_SIZE
        assert pacer.size <= pacer.window <= LARGEST_WINDOW
        assert pacer.rate >= 0
