"""A site that goes on while its rows are migrated, and remembers what it did to them."""

from __future__ import annotations

import random
from collections import Counter

from django.db.models import F

from massmigration.databases.registry import get_database
from massmigration.databases.transactions import run_write
from tests.faults.support import make_cities
from tests.testapp.models import City

MARK = 1000
"""What a change adds to a row's counter: so it is seen whether a change, or a visit, got lost."""

INSERTED = "row inserted by another connection"
DELETED = "row deleted by another connection"
CHANGED = "row changed by another connection"


class Site:
    """Inserts, deletes and changes rows.

    Args:
        chance: Decides which.
        db_alias: The database.
        rows: How many there are at first.
    """

    def __init__(self, chance: random.Random, db_alias: str, rows: int) -> None:
        self._chance = chance
        self._alias = db_alias
        self.cities = City.objects.using(db_alias)
        self.cities.all().delete()
        make_cities(db_alias, rows)
        self.first = set(self.cities.values_list("pk", flat=True))
        self.made: Counter[str] = Counter()
        self.changes: Counter[int] = Counter()
        self.deleted: dict[int, int] = {}

    def act(self) -> str:
        """Do one of it, and say what."""
        deed = self._chance.choice((self.insert, self.delete, self.change, self.change))
        return deed()

    def insert(self) -> str:
        """Insert a row behind all others."""
        run_write(self._alias, lambda: make_cities(self._alias, 1))
        self.made[INSERTED] += 1
        return "insert"

    def _choose(self) -> int:
        return self._chance.choice(sorted(self.first - set(self.deleted)))

    def delete(self) -> str:
        """Delete a row, and remember whether it had been visited."""
        key = self._choose()

        def write() -> int:
            rows = self.cities.filter(pk=key)
            if get_database(self._alias).has_row_locks:
                rows = rows.select_for_update()
            visits = rows.get().visits
            self.cities.filter(pk=key)._raw_delete(self._alias)
            return visits

        self.deleted[key] = run_write(self._alias, write)
        self.made[DELETED] += 1
        return f"delete {key}"

    def change(self) -> str:
        """Change a row."""
        key = self._choose()
        self.note_changes(key) if run_write(self._alias, lambda: self.mark(key)) else None
        return f"change {key}"

    def mark(self, key: int) -> int:
        """Write the change."""
        return self.cities.filter(pk=key).update(visits=F("visits") + MARK)

    def note_changes(self, *keys: int) -> None:
        """Remember changes that are committed."""
        self.changes.update(keys)
        self.made[CHANGED] += len(keys)

    def check(self) -> tuple[int, int]:
        """Look at each row's counter: no change lost, no row that was there at the start missed, none visited twice.

        Returns:
            How many visits there were, and how many rows were deleted.
        """
        visits = 0
        for key, number in self.cities.values_list("pk", "visits"):
            changes, visited = divmod(number, MARK)
            assert changes == self.changes[key], f"row {key}: {changes} of {self.changes[key]} changes are left"
            assert visited in ({1} if key in self.first else {0, 1}), f"row {key} was visited {visited} times"
            visits += visited
        for key, number in self.deleted.items():
            assert number % MARK in (0, 1), f"row {key} was visited {number % MARK} times"
            visits += number % MARK
        return visits, len(self.deleted)
