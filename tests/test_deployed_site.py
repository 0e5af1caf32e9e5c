"""The site as App Engine and Cloud Run serve it: the uploaded files, the real entrypoints, gunicorn."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

import pytest

from tests.deployment import KEY, MODULES, PLATFORMS, ROOT, get_environment, list_upload, manage, needs, read_yaml

UPLOADED = "massmigration was taken from the upload"
HOSTS = {"App Engine": "v1-dot-project.ew.r.appspot.com", "Cloud Run": "site-123.europe-west1.run.app"}


@pytest.fixture(scope="module")
def upload(tmp_path_factory) -> Path:
    """What .gcloudignore lets through, as the build gets it, with the static files that are collected before."""
    needs(*MODULES)
    project = tmp_path_factory.mktemp("upload")
    for name in list_upload(project):
        target = project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    with (project / "massmigration" / "__init__.py").open("a") as module:  # or another one could be meant
        module.write(f"\nimport sys\nprint({UPLOADED!r}, file=sys.stderr)\n")
    shutil.rmtree(project / "example_project" / "static-root", ignore_errors=True)
    done = manage(project, "collectstatic", "--noinput")
    assert done.returncode == 0, done.stderr
    return project


class NoRedirects(HTTPRedirectHandler):
    """Leaves the answer as it is."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


class Site:
    """A site that a real entrypoint serves, asked as Google's front end asks it.

    Args:
        port: Of the server.
        host: The name that visitors know it by.
        log: What the server writes.
    """

    def __init__(self, port: int, host: str, log: Path) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.host = host
        self.log = log
        self.cookies: dict[str, str] = {}

    def get(self, path: str, *, scheme: str = "https", host: str = "", data: dict[str, str] | None = None) -> Any:
        """Return the answer, its ``text`` read, also if it is an error; with ``data`` it is posted."""
        headers = {"Host": host or self.host, "X-Forwarded-Proto": scheme}
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if data is not None:
            headers["Origin"] = f"https://{self.host}"
        request = Request(self.address + path, headers=headers, data=urlencode(data).encode() if data else None)
        try:
            response = build_opener(NoRedirects).open(request, timeout=30)
        except HTTPError as error:
            response = error
        response.text = response.read().decode()
        for line in response.headers.get_all("Set-Cookie") or ():
            name, value = line.split(";")[0].split("=", 1)
            self.cookies[name] = value
        return response


def get_command(platform: str) -> str:
    """Return the very command that the platform runs."""
    if platform == "App Engine":
        return f"exec {read_yaml('app.yaml')['entrypoint']}"
    (command,) = re.findall(r"(?m)^CMD (exec .+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return str(command)


@pytest.fixture(scope="module", params=PLATFORMS)
def site(request, upload, tmp_path_factory) -> Iterator[Site]:
    """The uploaded files, served by the entrypoint of the platform, on SQLite."""
    platform = request.param
    directory = tmp_path_factory.mktemp("site")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    values = {
        **PLATFORMS[platform],
        "PORT": str(port),
        "DJANGO_SECRET_KEY": KEY,
        "EXAMPLE_DB": str(directory / "db.sqlite3"),
        "GOOGLE_CLOUD_PROJECT": "project",
        "DJANGO_SUPERUSER_PASSWORD": "secret",
    }
    for command in ("migrate --verbosity 0", "createsuperuser --noinput --username admin --email a@example.com"):
        done = manage(upload, *command.split(), **values)
        assert done.returncode == 0, done.stderr
    environment = get_environment(upload, **values)
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    if platform == "App Engine":
        del environment["PYTHONPATH"]  # the entrypoint itself has to find everything
    with (directory / "log").open("w") as log:
        server = subprocess.Popen(
            ["sh", "-c", get_command(platform)], env=environment, cwd=upload, stdout=log, stderr=log
        )
    served = Site(port, HOSTS[platform], directory / "log")
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                served.get("/_ah/warmup", scheme="http")
                break
            except URLError:
                assert server.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline, (directory / "log").read_text()
                time.sleep(0.1)
        yield served
    finally:
        server.terminate()
        server.wait(timeout=30)


def test_it_warms_up_over_plain_http(site):
    answer = site.get("/_ah/warmup", scheme="http")
    assert (answer.status, answer.text) == (200, "Warm; 5 mass migrations.\n")


def test_it_runs_the_massmigration_that_was_uploaded(site):
    assert UPLOADED in site.log.read_text()


def test_visitors_are_led_to_https_and_strangers_names_are_refused(site):
    answer = site.get("/countries/", scheme="http")
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{site.host}/countries/")
    assert site.get("/countries/").status == 200
    assert site.get("/countries/").headers["Strict-Transport-Security"]
    assert site.get("/countries/", host="www.example.com").status == 400
    missing = site.get("/nowhere/")
    assert missing.status == 404
    assert "DEBUG" not in missing.text


def test_tasks_and_cron_are_not_led_elsewhere(site):
    for path in ("/massmigration/run/", "/massmigration/recover/"):
        assert site.get(path, scheme="http").status in (403, 405)


def test_the_admin_has_its_style_and_lets_one_in(site):
    page = site.get("/admin/login/?next=/admin/")
    assert page.status == 200
    styles = re.findall(r'href="(/static/[^"]+\.css)"', page.text)
    assert styles
    for path in (*styles, "/static/massmigration/admin.css", "/static/massmigration/refresh.js"):
        assert site.get(path).status == 200, path
    page = site.get("/admin/login/?next=/admin/")
    (token,) = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text))
    data = {"csrfmiddlewaretoken": token, "username": "admin", "password": "secret", "next": "/admin/"}
    answer = site.get("/admin/login/", data=data)
    assert (answer.status, answer.headers["Location"]) == (302, "/admin/"), answer.text[:500]
    assert all("Secure" in line for line in answer.headers.get_all("Set-Cookie"))
