"""An item that asks to be visited later."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from massmigration import RetryLater
from massmigration.models import MigrationEvent
from massmigration.testing.visits import VISIT, VisitingMigration


class Migration(VisitingMigration):
    """Visit two items, the second one a second after the first."""

    count = 2
    batch_size = 1

    def operation(self, item: int, db_alias: str) -> None:
        """Visit the item; the second one rests first."""
        if item:
            events = MigrationEvent.objects.using(db_alias).filter(key=self.key)
            (first,) = [event for event in events if event.action == VISIT]
            if timezone.now() < first.at + timedelta(seconds=1):
                raise RetryLater(1, "the first visit to be a second ago")
        super().operation(item, db_alias)
