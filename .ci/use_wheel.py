"""Uses a built wheel as a new user would: an empty environment, a new Django project, a mass migration.

Usage: python use_wheel.py WHEEL DIRECTORY
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

EXPECTED = (
    "massmigration/py.typed",
    r"massmigration/migrations/0001_initial\.py",
    r"massmigration/migration_templates/(simple|mapper|batch|custom)\.py-tpl",
    r"massmigration/templates/.+\.html",
    r"massmigration/static/.+\.(css|js)",
    r"massmigration-.+\.dist-info/licenses/LICENSE",
)

MODELS = """\
from django.db import models


class Product(models.Model):
    name = models.CharField(max_length=100)
    slug = models.CharField(max_length=100, default="")
"""

ADD_PRODUCTS = """\
from goods.models import Product
Product.objects.bulk_create(Product(name=f"Product {number}") for number in range(2_500))
"""

READ_PRODUCTS = """\
from goods.models import Product
wrong = [product for product in Product.objects.all() if product.slug != product.name.lower()]
assert Product.objects.count() == 2_500 and not wrong, wrong[:5]
"""

OPEN_ADMIN = """\
import re
from django.contrib.auth.models import User
from django.test import Client
client = Client(headers={"host": "localhost"})
client.force_login(User.objects.create_superuser("admin"))
page = client.get("/admin/massmigration/migrationrecord/")
assert page.status_code == 200, page
href, = re.findall(r'href="([^"]+)"[^>]*>\\s*Manage migrations', page.content.decode())
page = client.get(href)
assert page.status_code == 200 and "0001_slugs" in page.content.decode(), page
"""


class Project:
    """A Django project in ``directory`` with an environment of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "venv" / "bin"
        unwanted = ("PYTHONPATH", "DJANGO_SETTINGS_MODULE", "VIRTUAL_ENV")
        self.environment = {name: value for name, value in os.environ.items() if name not in unwanted}

    def run(self, *command: object, code: int = 0) -> str:
        """Run a command, which has to end with ``code``, and return what it printed."""
        words = [str(word) for word in command]
        print("$", Path(words[0]).name, *(word if "\n" not in word else "…" for word in words[1:]), flush=True)
        done = subprocess.run(
            words,
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        if done.returncode != code:
            sys.exit(f"It ended with {done.returncode} instead of {code}:\n{done.stdout}")
        return done.stdout

    def manage(self, *arguments: str, code: int = 0) -> str:
        """Run a command of manage.py."""
        return self.run(self.bin / "python", "manage.py", *arguments, code=code)


def check_contents(wheel: Path) -> None:
    """Exit if a file is missing from the wheel, or one is in it that does not belong there."""
    names = zipfile.ZipFile(wheel).namelist()
    for pattern in EXPECTED:
        if not any(re.fullmatch(pattern, name) for name in names):
            sys.exit(f"{wheel.name} has no file {pattern}.")
    strangers = [name for name in names if not re.match(r"massmigration(-[^/]+\.dist-info)?/", name)]
    if strangers:
        sys.exit(f"{wheel.name} has files that do not belong to the package: {strangers}")


def make_project(project: Project, wheel: Path) -> None:
    """Install the wheel and make a site with one app and some rows."""
    project.directory.mkdir(parents=True)
    venv.create(project.directory / "venv", with_pip=True)
    project.run(project.bin / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    project.run(project.bin / "django-admin", "startproject", "shop", ".")
    project.manage("startapp", "goods")
    (project.directory / "goods" / "models.py").write_text(MODELS)
    with (project.directory / "shop" / "settings.py").open("a") as settings:
        settings.write('INSTALLED_APPS += ["massmigration", "goods"]\n')
    project.manage("makemigrations", "goods")
    project.manage("migrate")
    project.manage("shell", "-c", ADD_PRODUCTS)


def write_migration(project: Project) -> None:
    """Let a migration be made, and fill in what it leaves to the author."""
    project.manage("makemassmigration", "goods", "slugs", "--model", "goods.Product")
    path = project.directory / "goods" / "massmigrations" / "0001_slugs.py"
    text = path.read_text()
    argument = re.findall(r"def operation\(self, (\w+), db_alias\)", text)[0]
    text = text.replace("update_fields = []", 'update_fields = ["slug"]')
    path.write_text(re.sub(r"raise NotImplementedError\(.*\)", f"{argument}.slug = {argument}.name.lower()", text))


def main(wheel: Path, directory: Path) -> None:
    """Make the project, write the migration, run it, and look at what came of it."""
    check_contents(wheel)
    project = Project(directory)
    make_project(project, wheel)
    for template in ("simple", "mapper", "batch", "custom"):
        project.manage("makemassmigration", "goods", "tried", "--template", template, "--dry-run")
    write_migration(project)
    project.manage("check")
    project.manage("showmassmigrations", "--check", code=1)
    print(project.manage("massmigrate", "--noinput"))
    print(project.manage("showmassmigrations", "--check"))
    rows = json.loads(project.manage("showmassmigrations", "--format", "json"))
    if [(row["key"], row["status"], row["processed"]) for row in rows] != [("goods:0001_slugs", "applied", 2_500)]:
        sys.exit(f"showmassmigrations tells something else: {rows}")
    project.manage("shell", "-c", READ_PRODUCTS)
    project.manage("shell", "-c", OPEN_ADMIN)
    project.manage("makemigrations", "--check", "--dry-run")
    project.manage("check")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
