"""What the package is: its public names, how little importing it loads, and what is shipped with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import massmigration
from tests.conftest import get_environment

ROOT = Path(__file__).resolve().parent.parent

CLOUD_LIBRARIES = ("celery", "django_tasks", "djangae", "gcloudc", "google", "grpc", "redis")

LIST_MODULES = """
import json, sys
import massmigration
print(json.dumps(sorted(sys.modules)))
"""

LIST_MODULES_OF_ALL = """
import importlib, json, pkgutil, sys
before = set(sys.modules)  # some packages' .pth files load theirs into every process
import django
django.setup()
import massmigration
for module in pkgutil.walk_packages(massmigration.__path__, "massmigration."):
    importlib.import_module(module.name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def list_modules(environment: dict[str, str], program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    )
    modules: list[str] = json.loads(done.stdout)
    return modules


def test_public_names():
    assert massmigration.__all__ == [
        "BaseMigration",
        "BatchMigration",
        "CustomMigration",
        "MapperMigration",
        "RetryLater",
        "SimpleMigration",
        "__version__",
    ]
    assert all(hasattr(massmigration, name) for name in massmigration.__all__)


def test_importing_the_package_needs_no_settings_and_loads_no_model():
    modules = list_modules(get_environment({"DJANGO_SETTINGS_MODULE": None}), LIST_MODULES)
    assert "massmigration.definitions.mapper" in modules
    assert "massmigration.models" not in modules
    assert "massmigration.engine" not in modules
    assert not [name for name in modules if name.startswith("django.contrib.")]


def test_no_module_loads_a_cloud_library():
    modules = list_modules(get_environment(), LIST_MODULES_OF_ALL)
    assert "massmigration.api" in modules
    assert [name for name in modules if name.partition(".")[0] in CLOUD_LIBRARIES] == []


def test_package_is_marked_as_typed():
    assert (Path(massmigration.__file__).parent / "py.typed").exists()


def test_installed_version_is_the_packages_version():
    assert version("massmigration") == massmigration.__version__


def test_version_is_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert massmigration.__version__ in re.findall(r"^## \[?([\d.]+)", changelog, re.MULTILINE)
