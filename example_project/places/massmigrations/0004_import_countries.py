"""A CustomMigration: items that are not rows yet, here the lines of a CSV file."""

import csv

from django.conf import settings
from massmigration import CustomMigration
from places.models import City, Country


def read_lines(name):
    """Yield the lines of a CSV file in the data folder, as dictionaries."""
    with (settings.DATA_DIR / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


class Migration(CustomMigration):
    """Import the countries from a CSV file.

    The cursor is the number of the line: an import that was interrupted goes on behind the last line that
    it committed.
    """

    dependencies = [("places", "0003_alternate_names")]

    def get_shards(self, db_alias):
        return ["countries.csv"]

    def get_total(self, shard, db_alias):
        return sum(1 for line in read_lines(shard))

    def get_items(self, shard, cursor, db_alias):
        for number, line in enumerate(read_lines(shard), start=1):
            if number > (cursor or 0):
                yield number, line

    def operation(self, line, db_alias):
        Country.objects.using(db_alias).create(**line)

    def verify(self, db_alias):
        codes = Country.objects.using(db_alias).values("code")
        city = City.objects.using(db_alias).exclude(country_code__in=codes).first()
        return city is None or f"{city} lies in {city.country_code}, which countries.csv does not have."
