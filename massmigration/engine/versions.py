"""Which version of a migration's file an attempt is worked with, so that old code stops after a deploy.

The attempt names one version, by the hash of its text. A person's start, resume, retry or recovery names the one that
person's process has imported; so does a local worker process when it starts, and the watch of a run on a queue. All
other workers only compare: one with another version leaves the shards alone. A version that was replaced does not come
back by itself while its successor is at work, or two versions that serve at the same time would take the run from each
other forever.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any, Final

from django.utils import timezone

from massmigration import recorder, states
from massmigration.conf import conf
from massmigration.databases import clock
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration
from massmigration.discovery.loader import get_loader
from massmigration.engine.fitting import check_fits
from massmigration.engine.leases import is_live
from massmigration.exceptions import InvalidDefinition, VersionReplaced
from massmigration.models import MigrationAttempt, MigrationShard
from massmigration.recorder import Author

logger = logging.getLogger("massmigration")

WAITS: Final = "a worker with the current version of its file"
"""What a shard waits for that a worker with another version has left alone."""

PERSON: Final = "person"
WORKER: Final = "worker"
"""Who replaced a version: one that a person replaced comes back only if a person wants it."""

RETURN_ROUNDS: Final = 3
"""After this number of rounds of the watch without any progress a version that a worker replaced may come back."""


def get_own_hash(key: str) -> str:
    """Return the hash of the version that this process has imported; empty if it is unknown."""
    loader = get_loader()
    return loader.source_hash(key) if key in loader.files else ""


def is_current(attempt: MigrationAttempt) -> bool:
    """Return whether this process has the version that the attempt is worked with, as far as known."""
    own = get_own_hash(attempt.key)
    return not own or attempt.source_hash in ("", own)


def adopt(attempt_uuid: uuid.UUID, db_alias: str, author: Author, by: str = PERSON) -> bool:
    """Have the attempt worked with this process's version from now on, and write an event if it is another one.

    Return whether it is so; False if another process was faster. To be called in a write transaction.
    """
    attempt = recorder.get_attempt(attempt_uuid, db_alias)
    own = get_own_hash(attempt.key) if attempt is not None else ""
    if attempt is None or not own or attempt.source_hash == own:
        return True
    former = dict(attempt.former_hashes or {})
    if attempt.source_hash:
        former[attempt.source_hash] = {"by": by, "at": timezone.now().timestamp()}
    if by == PERSON:
        former = {name: {**how, "by": PERSON} for name, how in former.items()}
    former.pop(own, None)
    if not recorder.change_source(attempt, db_alias, own, former):
        return False
    if attempt.source_hash:
        detail = f"The file was changed: {attempt.source_hash[:12]} before, {own[:12]} now."
        recorder.add_event(attempt.key, db_alias, "change_file", author, attempt.uuid, detail)
    return True


def _refuse(attempt: MigrationAttempt, db_alias: str) -> VersionReplaced:
    return VersionReplaced(
        f"The run of {attempt.key} on database '{db_alias}' is worked with another version of its file than this "
        "process has imported, so this process leaves it alone. Run massmigrate again to work with the file as it is "
        "now; if that is refused too, pause the run and resume it from here.",
        key=attempt.key,
        db_alias=db_alias,
    )


def adopt_at_watch(attempt: MigrationAttempt, db_alias: str, author: Author) -> bool:
    """Adopt the version of the process that a watch task is delivered to, which is the one that serves.

    Return whether shards may be enqueued from here. The attempt is as the caller has just read it.
    """
    how = (attempt.former_hashes or {}).get(get_own_hash(attempt.key))
    if how is not None and not _may_return(how, recorder.get_shards(attempt.uuid, db_alias)):
        return False
    return run_write(db_alias, lambda: adopt(attempt.uuid, db_alias, author, WORKER))


def _may_return(how: dict[str, Any], shards: Sequence[MigrationShard]) -> bool:
    if how["by"] == PERSON or any(map(is_live, shards)):
        return False
    now = timezone.now()
    if any(clock.is_resting(shard, now) for shard in shards):
        return False
    signs = [moment for shard in shards for moment in (shard.last_progress_at, shard.finished_at) if moment]
    past = [moment.timestamp() for moment in signs if not clock.is_ahead(moment, now)]
    quiet_since = max([min(how["at"], now.timestamp()), *past])
    return bool(now.timestamp() - quiet_since > RETURN_ROUNDS * conf.watch_seconds)


def ensure_fit(migration: BaseMigration, db_alias: str, attempt: MigrationAttempt, author: Author) -> bool:
    """Fail the record of an attempt whose shards were planned for something else than the definition does now.

    Return whether its shards can be worked. An error of the author's ``get_queryset()`` is left to the visit, which
    reports it better.
    """
    try:
        check_fits(migration, db_alias, attempt)
    except InvalidDefinition as error:
        sentence = str(error)
    except Exception as error:
        logger.debug("%s: what the shards were planned for cannot be compared: %s", attempt.key, error)
        return True
    else:
        return True
    reason = states.OPERATION_ERROR
    run_write(db_alias, lambda: recorder.fail(attempt.key, db_alias, author, attempt.uuid, sentence, reason))
    return False


class Admission:
    """Whether a local worker process may work on an attempt, to be asked before each visit.

    One that ``adopts`` has just started, so that its version becomes the one to work with.
    """

    def __init__(self, migration: BaseMigration, db_alias: str, *, adopts: bool) -> None:
        self._migration, self._db_alias, self._adopts = migration, db_alias, adopts
        self._author = Author("worker process", "worker", sender=type(migration))
        self._fits_for: object = ...  # what was compared already; the definition stays as it is

    def ask(self, attempt_uuid: uuid.UUID) -> bool:
        """Return whether the process may continue; False if the attempt is gone, or was just failed as it does not fit.

        Raises:
            VersionReplaced: The attempt is worked with another version of the file.
        """
        attempt = recorder.get_attempt(attempt_uuid, self._db_alias)
        if attempt is None:
            return False
        if self._adopts or not attempt.source_hash:
            self._adopt(attempt)
        elif not is_current(attempt):
            raise _refuse(attempt, self._db_alias)
        if attempt.planned_for == self._fits_for:
            return True
        self._fits_for = attempt.planned_for
        return ensure_fit(self._migration, self._db_alias, attempt, self._author)

    def _adopt(self, attempt: MigrationAttempt) -> None:
        is_former = get_own_hash(attempt.key) in (attempt.former_hashes or {})
        if is_former and any(map(is_live, recorder.get_shards(attempt.uuid, self._db_alias))):
            raise _refuse(attempt, self._db_alias)
        run_write(self._db_alias, lambda: adopt(attempt.uuid, self._db_alias, self._author, WORKER))
        self._adopts = False
