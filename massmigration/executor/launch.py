"""Hands an attempt to its backend, after the commit of what made its shards ready."""

from __future__ import annotations

import logging
import uuid

from django.db import connections, transaction

from massmigration import logs, recorder, states
from massmigration.backends.base import get_backend
from massmigration.databases.redaction import describe, get_message
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import BackendUnreachable, MassMigrationError
from massmigration.models import MigrationShard
from massmigration.recorder import Author
from massmigration.watch import enqueue_watch

logger = logging.getLogger("massmigration")


def launch_after_commit(
    migration: BaseMigration, db_alias: str, attempt_uuid: uuid.UUID, author: Author, *, may_fail: bool = True
) -> None:
    """Launch the ready shards of an attempt once the transaction that is open now is committed.

    If the backend does not take the work, the record fails, and BackendUnreachable is raised outside a transaction,
    where the caller can still catch it. A recovery (``may_fail=False``) leaves the record as it was, so that the next
    one tries again by itself.
    """
    is_nested = connections[db_alias].in_atomic_block

    def launch() -> None:
        try:
            _launch(migration, db_alias, attempt_uuid)
        except Exception as error:
            sentence = get_message(error) if isinstance(error, MassMigrationError) else describe(error)
            if may_fail:
                failed = migration.key, db_alias, author, attempt_uuid, sentence
                cause = logs.Cause(error)
                run_write(db_alias, lambda: recorder.fail(*failed, states.BACKEND_UNREACHABLE, cause))
            else:
                extra = logs.fields(event="unreachable", key=migration.key, db_alias=db_alias, attempt=attempt_uuid)
                logger.warning("%s could not be recovered: %s", migration.key, sentence, extra=extra)
            if is_nested:  # Django would log it a second time, and the record shows it
                return
            raise BackendUnreachable(
                f"{migration.key} could not be handed to its backend on database '{db_alias}': {sentence} "
                f"{'Retry' if may_fail else 'Recover'} it when the problem is fixed.",
                key=migration.key,
                db_alias=db_alias,
            ) from error

    transaction.on_commit(launch, using=db_alias, robust=is_nested)


def _launch(migration: BaseMigration, db_alias: str, attempt_uuid: uuid.UUID) -> None:
    shards = recorder.get_shards(attempt_uuid, db_alias)
    ready = [shard.pk for shard in shards if shard.status == MigrationShard.READY]
    backend = get_backend(migration)
    log_path = backend.launch(migration.key, db_alias, attempt_uuid, ready)
    attempt = recorder.get_attempt(attempt_uuid, db_alias)
    if attempt is not None:
        enqueue_watch(backend, migration.key, db_alias, attempt)
    if log_path:
        run_write(db_alias, lambda: recorder.update_attempt(attempt_uuid, db_alias, log_path=log_path))
