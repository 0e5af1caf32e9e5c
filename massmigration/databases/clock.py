"""Leases and rests: how long they last, by the database's clock where it has one and else by the machine's.

So workers whose machines' clocks differ mean the same. The times when something is due again are by the clock of the
machine that wrote them. A clock that was set back makes them lie far ahead, and then nothing may wait for them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from datetime import timezone as fixed
from typing import Any, Final

from django.conf import settings
from django.utils import timezone

from massmigration.conf import conf
from massmigration.databases.registry import get_database
from massmigration.models import MigrationShard

MARGIN_SECONDS: Final = 300.0
"""A moment that lies further ahead than it can, by more than this, was written by a clock that was set back since."""

NO_LEASE: Final[dict[str, Any]] = {"lease_expires_at": None, "lease_until": None}
"""The fields of a shard that no worker holds."""


def make_lease(db_alias: str, seconds: float) -> dict[str, Any]:
    """Return the fields of a shard that is held from now on, for as many seconds."""
    until = round((get_database(db_alias).now() + seconds) * 1000)
    return {"lease_until": until, "lease_expires_at": _get_moment(until)}


def get_lease_rest(shard: MigrationShard, db_alias: str) -> float | None:
    """Return for how many more seconds a lease lasts, negative if it has run out; None if there is none.

    ``lease_expires_at`` names the same moment for people and for workers of the version before. Where the two differ,
    such a worker has written it, and knows nothing of ``lease_until``.
    """
    if shard.lease_expires_at is None:
        return None
    if shard.lease_until is not None and _is_same(shard.lease_expires_at, _get_moment(shard.lease_until)):
        return shard.lease_until / 1000 - get_database(db_alias).now()
    return (shard.lease_expires_at - timezone.now()).total_seconds()


def is_leased(shard: MigrationShard, db_alias: str) -> bool:
    """Return whether the lease lasts; one that lies further ahead than any lease can has run out long ago."""
    rest = get_lease_rest(shard, db_alias)
    return rest is not None and 0 <= rest <= conf.lease_seconds + MARGIN_SECONDS


def is_resting(shard: MigrationShard, now: datetime) -> bool:
    """Return whether no worker may take a shard yet, whose rest began when it was enqueued."""
    return shard.not_before is not None and shard.not_before > now and not is_ahead(shard.enqueued_at, now)


def is_ahead(moment: datetime, now: datetime, seconds: float = 0) -> bool:
    """Return whether a time lies so far ahead that the clock was set back since it was written.

    By what it means, it may lie ``seconds`` ahead.
    """
    return (moment - now).total_seconds() > seconds + MARGIN_SECONDS


def _get_moment(milliseconds: int) -> datetime:
    moment = datetime(1970, 1, 1, tzinfo=fixed.utc) + timedelta(milliseconds=milliseconds)
    return moment if settings.USE_TZ else timezone.make_naive(moment)


def _is_same(one: datetime, other: datetime) -> bool:
    return abs((one - other).total_seconds()) < 1
