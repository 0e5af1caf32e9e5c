"""Trial: what a mistake is tried with. It puts a definition into a file, checks it, starts it and works it off."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from django.apps import apps
from django.core import checks

from massmigration import api, states
from massmigration.checks import check_migrations
from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import MassMigrationError
from massmigration.worker import work
from tests.testapp.models import City
from tests.throwaway import Throwaway, reload_loader

CHECK_ERROR: Final = "check error"
CHECK_WARNING: Final = "check warning"
REFUSED: Final = "refused"
FAILURE: Final = "failure"
WARNING: Final = "warning"
FINE: Final = "fine"
OUTCOMES: Final = (CHECK_ERROR, CHECK_WARNING, REFUSED, FAILURE, WARNING, FINE)
"""The words of the column "outcome"; the page explains them."""

APP: Final = "mistaken"
CITY_COUNT: Final = 10

FILE: Final = """\
from tests.mistakes.trial import Trial

Migration = Trial.definitions[{number}]
"""


class Trial:
    """One mistake on one database.

    Attributes:
        db_alias: The database.
        sentence: What the author was told last; empty if nothing.

    Args:
        throwaway: Makes the app that holds the file.
        db_alias: The database.
    """

    definitions: ClassVar[list[Any]] = []

    def __init__(self, throwaway: Throwaway, db_alias: str) -> None:
        self.db_alias = db_alias
        self.sentence = ""
        self._throwaway = throwaway
        self._is_installed = False

    def add_cities(self, count: int = CITY_COUNT) -> None:
        """Make rows to migrate, named ``city 1`` and so on."""
        City.objects.using(self.db_alias).bulk_create(City(name=f"city {number}") for number in range(1, count + 1))

    def get_visits(self) -> list[int]:
        """Return how often each city was visited, in the order of the keys."""
        return list(City.objects.using(self.db_alias).order_by("pk").values_list("visits", flat=True))

    def load(self, definition: type[BaseMigration], name: str = "0001_mistake") -> str:
        """Put a definition into a file of the app, instead of the one that it had before; return its key."""
        self.definitions.append(definition)
        return self.write(FILE.format(number=len(self.definitions) - 1), name)

    def write(self, text: str, name: str = "0001_mistake") -> str:
        """Write a file of the app and have it read; return its key."""
        if self._is_installed:
            self._throwaway.write(f"{APP}/massmigrations/{name}.py", text)
        else:
            self._throwaway.make_app(APP, {f"{name}.py": text})
            self._is_installed = True
        reload_loader()
        return f"{APP}:{name}"

    def check(self) -> list[checks.CheckMessage]:
        """Return what ``manage.py check`` says of the app."""
        return check_migrations([apps.get_app_config(APP)])

    def run(self, definition: type[BaseMigration]) -> str:
        """Check a definition, start it and work it off on ten cities; return the outcome."""
        if not City.objects.using(self.db_alias).exists():
            self.add_cities()
        return self.go(self.load(definition))

    def go(self, key: str) -> str:
        """Check a migration, start it and work it off; return the outcome."""
        found = self.check()
        errors = [message for message in found if message.level >= checks.ERROR]
        try:
            api.start_migration(key, self.db_alias, actor="tester", enqueue=False)
        except MassMigrationError as refusal:
            assert api.get_record(key, self.db_alias) is None
            self.sentence = str(refusal)
            return CHECK_ERROR if errors else REFUSED
        assert not errors, f"check reports {errors}, but it was started"
        outcome = self.work(key)
        if found:
            self.sentence = found[0].msg
            return CHECK_WARNING
        return outcome

    def retry(self, key: str = f"{APP}:0001_mistake") -> str:
        """Retry a migration that failed, and work it off; return the outcome."""
        api.retry_migration(key, self.db_alias, actor="tester", enqueue=False)
        return self.work(key)

    def work(self, key: str) -> str:
        """Work off an attempt that is started already; return the outcome."""
        record = api.get_record(key, self.db_alias)
        assert record is not None and record.attempt_uuid is not None
        work(api.get_migration(key), self.db_alias, record.attempt_uuid)
        progress = api.get_progress(key, self.db_alias)
        assert progress.status in (states.APPLIED, states.FAILED), progress.status
        self.sentence = progress.error or progress.warning
        if progress.status == states.FAILED:
            return FAILURE
        return WARNING if progress.warning else FINE
