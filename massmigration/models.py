"""What is stored, in the database that is migrated; only ``recorder/`` writes it.

Rows are found by their key, or by the one field that carries an index: on Datastore and Firestore one explicit index
makes all other fields of a model unsearchable, which keeps their many writes cheap. Their order is that of their keys:
by an unsearchable field Datastore would find no row at all.

A column that is added after the first version may be null, which means unknown: during a deploy, workers of the
previous version still insert rows.
"""

from __future__ import annotations

import time
import uuid

from django.db import models
from django.utils import timezone

from massmigration import states

STATUS_CHOICES = [(status, states.LABELS[status]) for status in states.STORED]


class MigrationRecord(models.Model):
    """Where one migration stands on one database; no row means that it was not run."""

    key = models.CharField(max_length=255, primary_key=True)
    app_label = models.CharField(max_length=100)
    name = models.CharField(max_length=150)
    status = models.CharField(max_length=20, choices=STATUS_CHOICES, default=states.ENQUEUED)
    direction = models.CharField(max_length=10, default="forward")
    reason = models.CharField(max_length=30, blank=True, default="")
    error = models.TextField(blank=True, default="")
    attempt_uuid = models.UUIDField(null=True)
    faked = models.BooleanField(default=False)
    moved_at = models.DateTimeField(default=timezone.now)

    class Meta:
        app_label = "massmigration"
        db_table = "massmigration_record"
        ordering = ["key"]
        default_permissions = ("view",)
        permissions = [("run_migration", "Can run mass migrations")]
        verbose_name = "migration record"

    def __str__(self) -> str:
        return f"{self.key} ({self.get_status_display()})"


class MigrationAttempt(models.Model):
    """One launch of a migration, with what was asked for and, once it is over, its totals.

    ``planned_for`` tells what the shards were made for: the kind of migration, its model, and the type of its key.
    ``source_hash`` names the version of the file that may be worked with; ``former_hashes`` holds those it replaced,
    each with who replaced it, ``"person"`` or ``"worker"``.
    """

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4)
    key = models.CharField(max_length=255, db_index=True)
    direction = models.CharField(max_length=10, default="forward")
    parameters = models.JSONField(default=dict)
    backend = models.CharField(max_length=255, blank=True, default="")
    started_by = models.CharField(max_length=255, blank=True, default="")
    source_hash = models.CharField(max_length=64, blank=True, default="")
    former_hashes = models.JSONField(null=True)
    planned_for = models.JSONField(null=True)
    log_path = models.TextField(blank=True, default="")
    warning = models.TextField(blank=True, default="")
    until_empty = models.BooleanField(default=False)
    total = models.BigIntegerField(null=True)
    total_is_estimate = models.BooleanField(default=False)
    processed = models.BigIntegerField(null=True)
    changed = models.BigIntegerField(null=True)
    shards = models.IntegerField(null=True)
    started_at = models.DateTimeField(default=timezone.now)
    watch_due_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        app_label = "massmigration"
        db_table = "massmigration_attempt"
        ordering = ["uuid"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.key} {self.uuid}"


class MigrationShard(models.Model):
    """A range of keys that is worked on as one resumable unit; also the planning and the finish of an attempt.

    ``lower`` (exclusive), ``upper`` (inclusive) and ``cursor`` are keys as ``databases/keys.py`` encodes them; None is
    open. ``lease_until`` is the end of the lease in milliseconds since 1970 (UTC), by the database's clock;
    ``takeovers`` counts the workers that were lost since the cursor last moved; ``extension`` tells how far the last,
    open range has grown since it was planned.
    """

    PLAN, RANGE, FINISH = "plan", "range", "finish"
    READY, RUNNING, DONE, FAILED = "ready", "running", "done", "failed"

    id = models.CharField(max_length=64, primary_key=True)
    attempt_uuid = models.UUIDField(db_index=True)
    key = models.CharField(max_length=255)
    kind = models.CharField(max_length=10)
    pass_number = models.IntegerField(default=1)
    number = models.IntegerField(default=0)
    status = models.CharField(max_length=10, default=READY)
    lower = models.TextField(null=True)
    upper = models.TextField(null=True)
    cursor = models.TextField(null=True)
    payload = models.JSONField(null=True)
    fence = models.BigIntegerField(default=0)
    worker = models.CharField(max_length=100, blank=True, default="")
    lease_expires_at = models.DateTimeField(null=True)
    lease_until = models.BigIntegerField(null=True)
    not_before = models.DateTimeField(null=True)
    enqueued_at = models.DateTimeField(default=timezone.now)
    waiting_for = models.CharField(max_length=255, blank=True, default="")
    total = models.BigIntegerField(null=True)
    processed = models.BigIntegerField(default=0)
    changed = models.BigIntegerField(default=0)
    left_matching = models.BigIntegerField(default=0)
    batch_size = models.IntegerField(null=True)
    batches = models.BigIntegerField(default=0)
    rate = models.FloatField(default=0)
    retries = models.IntegerField(default=0)
    takeovers = models.IntegerField(null=True)
    extension = models.JSONField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    last_progress_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        app_label = "massmigration"
        db_table = "massmigration_shard"
        ordering = ["id"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.id

    @staticmethod
    def make_id(attempt_uuid: uuid.UUID, kind: str, pass_number: int = 1, number: int = 0) -> str:
        """Return the primary key, so that planning twice makes nothing twice."""
        return f"{attempt_uuid.hex}-{kind}-{pass_number}-{number}"


class MigrationFailure(models.Model):
    """One object that an operation could not handle; ``is_passed`` if the cursor has moved past it."""

    OPEN, RETRIED, ACCEPTED = "open", "retried", "accepted"

    id = models.CharField(max_length=64, primary_key=True)
    attempt_uuid = models.UUIDField(db_index=True)
    key = models.CharField(max_length=255)
    shard_id = models.CharField(max_length=64)
    object_key = models.TextField(null=True)
    object_repr = models.CharField(max_length=255, blank=True, default="")
    error_class = models.CharField(max_length=255)
    message = models.TextField(blank=True, default="")
    traceback = models.TextField(blank=True, default="")
    status = models.CharField(max_length=10, default=OPEN, db_index=True)
    is_passed = models.BooleanField(default=False)
    failed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        app_label = "massmigration"
        db_table = "massmigration_failure"
        ordering = ["id"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.key}: {self.error_class} at {self.object_key}"


def make_event_id() -> str:
    """Return a key that is smaller than all earlier ones, so that the newest event is found first by its key alone."""
    return f"{2**64 - time.time_ns():016x}-{uuid.uuid4().hex[:8]}"


class MigrationEvent(models.Model):
    """One line of the audit trail: what, when, who, from where."""

    id = models.CharField(max_length=32, primary_key=True, default=make_event_id)
    key = models.CharField(max_length=255, db_index=True)
    attempt_uuid = models.UUIDField(null=True)
    action = models.CharField(max_length=20)
    status = models.CharField(max_length=20, blank=True, default="")
    actor = models.CharField(max_length=255, blank=True, default="")
    user_id = models.CharField(max_length=255, blank=True, default="")
    origin = models.CharField(max_length=20, blank=True, default="")
    detail = models.TextField(blank=True, default="")
    parameters = models.JSONField(default=dict)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        app_label = "massmigration"
        db_table = "massmigration_event"
        ordering = ["pk"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.key} {self.action} by {self.actor}"
