"""What the tests of the deployment share: the files as they are read, and processes with a clean environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install -r requirements/test.txt")

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("gunicorn", "whitenoise", "google.cloud.logging", "google.cloud.secretmanager")
KEY = "only-for-this-test-but-long-enough-for-the-checks-of-django-0123456789"
PLATFORMS = {
    "App Engine": {"GAE_ENV": "standard", "GAE_SERVICE": "default", "GAE_VERSION": "v1"},
    "Cloud Run": {"K_SERVICE": "site", "K_REVISION": "site-00001"},
}
OURS = re.compile(
    r"GAE_|K_|CLOUD_RUN|EXAMPLE_|MASSMIGRATION_|DJANGO_|PG[A-Z]+$|GOOGLE_|DATASTORE_|TASKS_|ALLOWED_HOSTS|PYTHONPATH"
)


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def get_environment(project: Path, **values: str) -> dict[str, str]:
    """Return an environment in which nothing of ours is set but ``values``, and no Google account is looked for."""
    clean = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    paths = os.pathsep.join((str(project / "example_project"), str(project)))
    return clean | {"PYTHONPATH": paths, "NO_GCE_CHECK": "true", "PYTHONUTF8": "1"} | values


def manage(project: Path, *arguments: str, **values: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "example_project/manage.py", *arguments],
        env=get_environment(project, **values),
        cwd=project,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def needs(*modules: str) -> None:
    for module in modules:
        pytest.importorskip(module, reason=f"{module} is not installed: pip install -r requirements/test.txt")


def list_image(project: Path) -> list[str]:
    """Return the files of a project that .dockerignore lets into the build of an image.

    The rules are Docker's: patterns begin at the root, the last that matches a file or a folder above it decides.
    https://docs.docker.com/build/concepts/context/#dockerignore-files
    """
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [
        (line.startswith("!"), _translate(line.lstrip("!"))) for line in lines if line and not line.startswith("#")
    ]
    found = []
    for path in project.rglob("*"):
        name, is_left_out = path.relative_to(project).as_posix(), False
        for is_exception, pattern in rules:
            if pattern.fullmatch(name):
                is_left_out = not is_exception
        if path.is_file() and not is_left_out:
            found.append(name)
    return found


def _translate(pattern: str) -> re.Pattern[str]:
    parts = {"**/": "(?:.*/)?", "*": "[^/]*"}
    text = "".join(
        parts.get(part, part if part.startswith("[") else re.escape(part))
        for part in re.split(r"(\*\*/|\*|\[.*?\])", pattern.strip("/"))
    )
    return re.compile(f"{text}(?:/.*)?")


def list_upload(directory: Path) -> list[str]:
    """Return the files that .gcloudignore lets through; it is written and read as .gitignore is."""
    git = ["git", "--git-dir", str(directory / "git"), "--work-tree", str(ROOT)]
    subprocess.run(["git", "init", "--quiet", "--bare", str(directory / "git")], check=True)
    listed = subprocess.run(
        [*git, "-c", "core.bare=false", "ls-files", "-z", "--others", "--exclude-from=.gcloudignore"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    return [name for name in listed.stdout.split("\0") if name]
