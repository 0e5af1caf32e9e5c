"""Mistakes in what is written back."""

from __future__ import annotations

from tests.mistakes import mistake
from tests.mistakes.files import Visits


@mistake("update-fields-string")
class UpdateFieldsString(Visits):
    update_fields = "visits"


@mistake("update-fields-unknown")
class UpdateFieldsUnknown(Visits):
    update_fields = ["visit"]


@mistake("sets-nothing")
class SetsNothing(Visits):
    def operation(self, city, db_alias):
        city.visit = city.visits + 1
