"""A deploy during a run on Datastore and Firestore: the version is changed in the transaction of the move."""

from __future__ import annotations

import time

import pytest

from massmigration import api, executor, recorder, states
from massmigration.discovery.loader import get_loader
from massmigration.engine.kinds import get_kind
from massmigration.exceptions import InvalidDefinition
from massmigration.models import MigrationShard
from tests.cloud.support import Visit, make, make_rows
from tests.engine.support import AUTHOR, claim_range, start, work

KEY = "cloudapp:0002_mapper"


@pytest.mark.parametrize("action", ["resume", "retry"])
def test_a_person_has_the_run_worked_with_the_version_of_her_process(db_alias, action):
    make_rows(db_alias, 20)
    migration = api.get_migration(KEY)
    attempt_uuid = start(migration, db_alias)
    claim_range(migration, db_alias)
    recorder.update_attempt(attempt_uuid, db_alias, source_hash="f" * 64)
    executor.pause(KEY, db_alias, AUTHOR)
    if action == "retry":
        record = recorder.get_record(KEY, db_alias)
        record.status, record.reason = states.FAILED, states.NOT_EMPTY  # whose retry writes to the attempt, too
        record.save(using=db_alias)
    getattr(executor, action)(migration, db_alias, AUTHOR, enqueue=False)
    attempt = recorder.get_attempt(attempt_uuid, db_alias)
    assert attempt.source_hash == get_loader().source_hash(KEY)
    assert set(attempt.former_hashes) == {"f" * 64}
    assert "change_file" in [event.action for event in api.get_events(KEY, db_alias)]
    assert work(migration, db_alias).status == states.APPLIED


def test_a_local_process_adopts_its_version_and_a_purpose(db_alias):
    make_rows(db_alias, 20)
    migration = api.get_migration(KEY)
    attempt_uuid = start(migration, db_alias)
    recorder.update_attempt(attempt_uuid, db_alias, source_hash="f" * 64)
    assert work(migration, db_alias).status == states.APPLIED
    attempt = recorder.get_attempt(attempt_uuid, db_alias)
    assert attempt.source_hash == get_loader().source_hash(KEY)
    assert attempt.planned_for == get_kind(migration).get_purpose(db_alias)


def test_a_changed_file_that_does_not_fit_is_refused(db_alias):
    make_rows(db_alias, 20)
    migration = make(Visit)
    attempt_uuid = start(migration, db_alias)
    claim_range(migration, db_alias)
    executor.pause(migration.key, db_alias, AUTHOR)
    planned_for = {**get_kind(migration).get_purpose(db_alias), "model": "cloudapp.Other"}
    recorder.update_attempt(attempt_uuid, db_alias, planned_for=planned_for)
    with pytest.raises(InvalidDefinition, match=r"planned for model cloudapp\.Other"):
        executor.resume(migration, db_alias, AUTHOR, enqueue=False)


def test_recover_takes_a_shard_whose_lease_lies_too_far_ahead(db_alias):
    make_rows(db_alias, 20)
    migration = make(Visit)
    start(migration, db_alias)
    shard = claim_range(migration, db_alias)
    far = recorder.get_shard(shard.pk, db_alias)
    assert abs(far.lease_until / 1000 - time.time() - 30) < 20
    far.lease_until = None
    far.lease_expires_at = far.lease_expires_at.replace(year=far.lease_expires_at.year + 1)
    far.save(using=db_alias)
    executor.recover(migration, db_alias, AUTHOR, enqueue=False)
    assert recorder.get_shard(shard.pk, db_alias).status == MigrationShard.READY
