"""Shows massmigration from beginning to end: cities without slugs go in, migrated cities come out."""

import json
import os
import sys
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from massmigration import api
from places.models import City, Country
from rich.console import Console
from rich.table import Table

USERNAME = PASSWORD = "admin"
CITIES = [3448439, 1529102, 1850147, 3413829]  # São Paulo, Ürümqi, Tokyo, Reykjavík
COUNTRY = "BR"
BEFORE = "before.json"


def look():
    """Return what is stored about a few cities and a country, as ``[subject, field, value]``."""
    rows = []
    for city in City.objects.filter(pk__in=CITIES).order_by("-population"):
        rows += [
            [city.name, "slug", city.slug],
            [city.name, "size", city.size],
            [city.name, "alternate names", f"{city.names.count()} rows"],
        ]
    country = Country.objects.filter(pk=COUNTRY).first()
    name = f"{country.name}, {country.continent}, {country.currency}" if country else ""
    count = f"{country.city_count:,} cities" if country else ""
    return [*rows, [f"Country {COUNTRY}", "row", name], [f"Country {COUNTRY}", "total", count]]


class Command(BaseCommand):
    help = "Make the database, load the cities, run all mass migrations, and show what they changed."

    def add_arguments(self, parser):
        parser.add_argument("--limit", type=int, help="load only so many cities, the largest ones")

    def handle(self, *, limit, **options):
        self.console = Console(highlight=False, soft_wrap=True)
        self.begin("1. The database")
        self.make_database()
        self.make_superuser()
        self.begin("2. Real cities")
        call_command("load_cities", limit=limit)
        before = self.remember()
        self.begin("3. The mass migrations")
        for progress in api.get_all_progress():
            if progress.status in ("paused", "failed"):  # what a person stopped goes on only by its name
                self.run("massmigrate", progress.app_label, progress.name, "--noinput")
        self.run("massmigrate", "--noinput")
        self.begin("4. What changed")
        self.compare(before)
        self.run("showmassmigrations", "--check")
        self.begin("5. Look for yourself")
        self.explain()

    def begin(self, title):
        self.console.print(f"\n[bold]{title}[/bold]")

    def make_database(self):
        is_new = not connection.introspection.table_names()
        call_command("migrate", interactive=False, verbosity=0)
        name = Path(connection.settings_dict["NAME"]).name
        self.console.print(f"{name} is {'made' if is_new else 'there already'}; Django's migrations are applied.")

    def make_superuser(self):
        if not settings.DEBUG:
            raise CommandError("The demo's superuser has a known password. Run it with DEBUG = True only.")
        users = get_user_model().objects
        if users.filter(username=USERNAME).exists():
            self.console.print(f"The superuser {USERNAME} is there already.")
        else:
            users.create_superuser(USERNAME, password=PASSWORD)
            self.console.print(f"The superuser {USERNAME} is made, with the password {PASSWORD}.")

    def remember(self):
        """Return what was stored before the first mass migration began, in whichever run that was."""
        path = settings.DATA_DIR / BEFORE
        if not path.exists() or not City.objects.exclude(slug="").exists():
            path.write_text(json.dumps(look()), encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))

    def run(self, *arguments):
        """Run a command that tells by its exit code whether all is well."""
        try:
            call_command(*arguments)
        except SystemExit as end:
            if end.code:
                raise

    def compare(self, before):
        table = Table("", "", "before", "after")
        last = None
        old_values = {(subject, field): value for subject, field, value in before}
        for subject, field, new in look():
            old = old_values.get((subject, field))
            if subject != last and last is not None:
                table.add_section()
            table.add_row(subject if subject != last else "", field, old or "–", new or "–")
            last = subject
        self.console.print(table)

    def explain(self):
        python, manage = (os.path.relpath(path) for path in (sys.executable, settings.BASE_DIR / "manage.py"))
        self.console.print(f"{python} {manage} runserver")
        self.console.print("  The site         http://127.0.0.1:8000/")
        self.console.print(f"  The admin        http://127.0.0.1:8000/admin/  (user {USERNAME}, password {PASSWORD})")
        self.console.print("  The migrations   Mass migrations → Migration records → Manage migrations")
