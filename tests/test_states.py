"""The table of moves is whole, and every refusal is a sentence with a way out."""

from __future__ import annotations

import pytest

from massmigration import states, wording

EVERY_STATUS = (states.NOT_RUN, *states.STORED)


def test_every_status_has_a_word():
    assert set(states.LABELS) == {*EVERY_STATUS, states.BROKEN, states.ORPHANED}


def test_every_move_names_known_statuses_and_its_reason():
    for move in states.MOVES.values():
        assert set(move.sources) <= set(EVERY_STATUS)
        assert move.target is None or move.target in EVERY_STATUS
        assert move.why.endswith(".")


def test_no_status_is_a_dead_end():
    for status in EVERY_STATUS:
        assert states.get_legal_actions(status), status


def test_nobody_can_start_resume_or_retry_what_is_at_work():
    for status in states.ACTIVE:
        assert not {"start", "resume", "retry", "restart", "fake", "reset"} & set(states.get_legal_actions(status))


@pytest.mark.parametrize("status", EVERY_STATUS)
@pytest.mark.parametrize("action", states.PERSONS_ACTIONS)
def test_a_refusal_names_migration_database_status_and_the_way_out(action, status):
    if states.is_legal(action, status):
        return
    sentence = wording.get_refusal(action, "places:0002_slugs", "default", status)
    assert sentence.startswith("places:0002_slugs is ")
    assert states.LABELS[status] in sentence
    assert "on database 'default'" in sentence
    fact, _, way_out = sentence.partition(". ")
    assert fact
    assert way_out.endswith(".")


def test_what_is_running_is_already_running():
    sentence = wording.get_refusal("start", "places:0002_slugs", "default", "running")
    assert sentence == (
        "places:0002_slugs is already running on database 'default'. Pause or cancel it before starting it again."
    )


@pytest.mark.parametrize(
    ("action", "status"),
    [("pause", "paused"), ("cancel", "cancelled"), ("fake", "applied"), ("resume", "running"), ("retry", "running")],
)
def test_what_is_so_already_is_said_to_be(action, status):
    sentence = wording.get_refusal(action, "places:0002_slugs", "default", status)
    assert sentence.startswith(f"places:0002_slugs is already {status} on database 'default'. ")
    assert "so it cannot" not in sentence


def test_what_was_never_run_need_not_be_started_to_be_reset():
    assert wording.get_refusal("reset", "places:0002_slugs", "default", "not_run").endswith(
        "There is nothing to reset."
    )
