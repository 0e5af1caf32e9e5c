"""The table of actions: each has its verb, button, page, log line, event and signal, and nothing has one besides."""

from __future__ import annotations

import inspect
import logging

import pytest
from django.dispatch import Signal

from massmigration import api, recorder, signals, states, wording
from massmigration.admin.actions import BUTTONS
from massmigration.management.verbs import VERBS
from massmigration.models import MigrationEvent
from massmigration.recorder import Author

KEY, ALIAS = "testapp:0001_test", "default"
ANNA = Author("anna", "admin")
PERSONS = [states.ACTIONS[name] for name in states.PERSONS_ACTIONS]
SIGNALS = {value for value in vars(signals).values() if isinstance(value, Signal)}


@pytest.mark.parametrize("action", PERSONS, ids=lambda action: action.name)
def test_what_a_person_does_is_a_verb_a_button_and_a_function(action):
    assert VERBS[action.verb].help.startswith(action.why) or action.name == "start"  # whose verb does more than start
    assert BUTTONS[action.verb] is action
    assert action.asks_first == action.button.endswith("…")
    assert inspect.signature(api.ACTIONS[action.name]).parameters["origin"].default == "api"
    assert wording.describe_done(action.name, KEY, ALIAS).startswith(f"Migration {KEY} {action.done} on database ")


def test_there_are_no_other_verbs_buttons_and_functions():
    assert set(api.ACTIONS) == set(states.PERSONS_ACTIONS) == {action.name for action in BUTTONS.values()}
    assert set(VERBS) - {action.verb for action in PERSONS} == {"failures", "watch", "events"}


def test_every_signal_belongs_to_an_action():
    assert {action.signal for action in states.ACTIONS.values()} - {None} == SIGNALS - {signals.migration_rolled_back}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("action", states.ACTIONS.values(), ids=lambda action: action.name)
def test_every_action_leaves_an_event_a_line_and_its_signal(action, caplog):
    caplog.set_level(logging.DEBUG, logger="massmigration")
    sent = []

    def receive(signal, **kwargs):
        sent.append((signal, kwargs["key"], kwargs["actor"]))

    for signal in SIGNALS:
        signal.connect(receive)
    try:
        recorder.add_event(KEY, ALIAS, action.name, ANNA)
    finally:
        for signal in SIGNALS:
            signal.disconnect(receive)
    assert sent == ([(action.signal, KEY, "anna")] if action.signal else [])
    event = MigrationEvent.objects.get()
    assert (event.action, event.status) == (action.name, action.target or "")
    (line,) = [record for record in caplog.records if record.name == "massmigration"]
    assert line.getMessage() == f"{KEY} {action.done} on database 'default' by anna (admin)"
    assert line.levelno == action.level
    assert line.json_fields["event"] == action.name


def test_a_run_is_stopped_by_pause_and_cancel_and_begun_by_start_and_restart():
    assert [action.name for action in PERSONS if action.stops] == ["pause", "cancel"]
    assert [action.name for action in PERSONS if action.makes_attempt] == ["start", "restart"]
    assert [action.name for action in PERSONS if not action.needs_file] == ["pause", "cancel", "reset"]


@pytest.mark.parametrize(
    ("status", "action"),
    [
        (states.NOT_RUN, "start"),
        (states.PAUSED, "resume"),
        (states.FAILED, "retry"),
        (states.CANCELLED, "start"),
        (states.ROLLED_BACK, "start"),
        (states.APPLIED, None),
        (states.RUNNING, None),
    ],
)
def test_what_leads_on_from_a_status(status, action):
    assert states.get_action_towards_end(status) == action
