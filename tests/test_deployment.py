"""What is deployed to App Engine and Cloud Run: the files, and the settings that the environment selects."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from packaging.requirements import Requirement

from tests.deployment import (
    KEY,
    MODULES,
    PLATFORMS,
    ROOT,
    get_environment,
    list_image,
    list_upload,
    manage,
    needs,
    read_yaml,
)

FLAVOURS = {"app.yaml": "requirements.txt", "app-djangae.yaml": "requirements/djangae.txt"}
EXTRAS = {"app.yaml": {"cloudtasks", "logging"}, "app-djangae.yaml": {"djangae", "datastore", "logging"}}

SHOW = """
import json, sys
import django
from django.conf import settings
django.setup()
names = [name for name in dir(settings) if name.isupper()]
print(json.dumps({name: getattr(settings, name) for name in names}, default=str))
"""

SECRET_MANAGER = """
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from config.secrets import read_secret
from google.cloud import secretmanager
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceGrpcTransport
from google.cloud.secretmanager_v1.types import AccessSecretVersionRequest, AccessSecretVersionResponse

asked = []

def access(request, context):
    asked.append(request.name)
    return AccessSecretVersionResponse(name=request.name, payload={"data": "hush, ü\\n".encode()})

handler = grpc.unary_unary_rpc_method_handler(
    access, AccessSecretVersionRequest.deserialize, AccessSecretVersionResponse.serialize
)
service = "google.cloud.secretmanager.v1.SecretManagerService"
server = grpc.server(ThreadPoolExecutor(1))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"AccessSecretVersion": handler})])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
transport = SecretManagerServiceGrpcTransport(channel=grpc.insecure_channel(f"127.0.0.1:{port}"))
name = "projects/p/secrets/django-secret-key/versions/latest"
assert read_secret(name, secretmanager.SecretManagerServiceClient(transport=transport)) == "hush, ü"
assert asked == [name]
server.stop(None)
"""


def read_requirements(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def show_settings(**values: str) -> dict[str, Any]:
    """Return the settings of the example project in an environment with ``values``."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        env=get_environment(ROOT, DJANGO_SETTINGS_MODULE="config.settings", **{"EXAMPLE_LOCAL": "1", **values}),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    settings: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return settings


@pytest.mark.parametrize("name", FLAVOURS)
def test_the_entrypoint_bears_tasks_of_ten_minutes(name):
    app = read_yaml(name)
    assert app["runtime"] in {"python311", "python312", "python313", "python314"}
    options = dict(re.findall(r"--([\w-]+)(?: ([^-\s]\S*))?", app["entrypoint"]))
    assert options["bind"] == ":$PORT"
    assert options["timeout"] == "0"
    assert "preload" not in options, "gRPC does not survive the fork"
    slots = int(options["workers"]) * int(options["threads"])
    assert app["automatic_scaling"]["max_concurrent_requests"] == slots
    assert app["inbound_services"] == ["warmup"]


@pytest.mark.parametrize("name", FLAVOURS)
def test_static_files_are_served_before_the_site_and_nothing_asks_for_login(name):
    handlers = read_yaml(name)["handlers"]
    assert [handler["url"] for handler in handlers] == ["/static", "/.*"]
    assert (ROOT / handlers[0]["static_dir"]) == Path(show_settings()["STATIC_ROOT"])
    assert show_settings()["STATIC_URL"] == "/static/"
    assert not any("login" in handler for handler in handlers)
    assert "secure" not in handlers[1], "tasks and cron come as plain HTTP"


@pytest.mark.parametrize("name", FLAVOURS)
def test_every_variable_of_app_yaml_is_read(name):
    variables = read_yaml(name)["env_variables"]
    config = ROOT / "example_project" / "config"
    read = " ".join(path.read_text(encoding="utf-8") for path in config.glob("*.py"))
    assert all(variable in read for variable in variables)
    assert all(isinstance(value, str) for value in variables.values()), "App Engine takes strings only"
    assert not any(re.search("PASSWORD|SECRET", variable) for variable in variables), "those are not for a file"


def test_the_flavours_differ_in_database_and_backend_only():
    default, djangae = read_yaml("app.yaml"), read_yaml("app-djangae.yaml")
    changed = {
        key for key in default["env_variables"] if default["env_variables"][key] != djangae["env_variables"].get(key)
    }
    assert changed == {"EXAMPLE_POSTGRES", "PGHOST", "PGUSER", "MASSMIGRATION_BACKEND"}
    assert set(djangae["env_variables"]) - set(default["env_variables"]) == {"EXAMPLE_DATASTORE"}
    assert default | {"env_variables": None} == djangae | {"env_variables": None}


def test_cloud_run_starts_what_app_engine_starts():
    (command,) = re.findall(r"(?m)^CMD exec (gunicorn .+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert command == read_yaml("app.yaml")["entrypoint"].replace("--pythonpath .. ", "")
    (version,) = re.findall(r"(?m)^FROM python:(\d+\.\d+)-slim$", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert read_yaml("app.yaml")["runtime"] == f"python{version.replace('.', '')}"


def test_the_queue_is_the_one_that_tasks_are_put_on_and_never_gives_up():
    (queue,) = read_yaml("queue.yaml")["queue"]
    assert queue["name"] == read_yaml("app.yaml")["env_variables"]["MASSMIGRATION_TASK_QUEUE"]
    assert not {"task_retry_limit", "task_age_limit"} & set(queue["retry_parameters"])
    assert int(queue["rate"].removesuffix("/s")) <= 500, "the most that Cloud Tasks dispatches"


def test_cron_calls_the_view_that_recovers():
    (job,) = read_yaml("cron.yaml")["cron"]
    assert job["url"] == "/massmigration" + reverse("recover", urlconf="massmigration.urls")
    assert job["schedule"] == "every 10 minutes"


def test_no_composite_index_is_needed():
    assert read_yaml("index.yaml") == {"indexes": []}
    indexes = json.loads((ROOT / "firestore.indexes.json").read_text(encoding="utf-8"))
    assert indexes == {"indexes": [], "fieldOverrides": []}


@pytest.mark.parametrize("name", FLAVOURS)
def test_what_massmigration_and_its_extras_need_is_installed(name):
    listed = {requirement.name.lower(): requirement.specifier for requirement in read_requirements(FLAVOURS[name])}
    for text in requires("massmigration") or ():
        needed = Requirement(text)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in EXTRAS[name]):
            assert needed.name.lower() in listed, f"{needed.name} is missing from {FLAVOURS[name]}"
            lowest = {str(part) for part in needed.specifier if part.operator == ">="}
            assert lowest <= {str(part) for part in listed[needed.name.lower()]}


def test_the_upload_has_what_the_site_needs_and_nothing_else(tmp_path):
    names = list_upload(tmp_path)
    allowed = r"massmigration/|example_project/|(app|app-djangae)\.yaml$|requirements\.txt$|Dockerfile$"
    assert not [name for name in names if not re.match(allowed, name)]
    assert not [name for name in names if re.search(r"sqlite3|__pycache__|\.log$|/logs/", name)]
    for path in (ROOT / "massmigration").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT)) in names
    assert {"app.yaml", "requirements.txt", "Dockerfile", "example_project/config/wsgi.py"} <= set(names)


def test_on_ones_own_machine_nothing_is_different():
    settings = show_settings()
    assert settings["DEBUG"] is True
    assert settings["SECRET_KEY"] == "for this demonstration only"
    assert settings["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]
    assert settings["DATABASES"]["default"]["NAME"] == str(ROOT / "example_project" / "db.sqlite3")
    assert settings["MASSMIGRATION_BACKEND"] == "massmigration.backends.local.LocalBackend"
    assert settings["MASSMIGRATION_LOG_DIR"] == str(ROOT / "example_project" / "data" / "logs")
    assert settings["SECURE_SSL_REDIRECT"] is False
    assert not re.search("whitenoise|djangae|google", " ".join(settings["MIDDLEWARE"] + settings["INSTALLED_APPS"]))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_on_google_cloud_sql_is_reached_through_its_socket(platform):
    needs(*MODULES)
    settings = show_settings(
        **PLATFORMS[platform],
        DJANGO_SECRET_KEY=KEY,
        EXAMPLE_POSTGRES="example",
        PGHOST="/cloudsql/project:europe-west1:main",
        PGPASSWORD="hush",
        ALLOWED_HOSTS="www.example.com, .example.org",
        MASSMIGRATION_BACKEND="massmigration.backends.cloudtasks.CloudTasksBackend",
    )
    database = settings["DATABASES"]["default"]
    assert (database["ENGINE"], database["NAME"]) == ("django.db.backends.postgresql", "example")
    assert database["PASSWORD"] == "hush"
    assert not database.get("HOST"), "PGHOST, which libpq reads, is the socket's folder"
    assert settings["DEBUG"] is False
    assert settings["SECRET_KEY"] == KEY
    wildcard = {"App Engine": ".appspot.com", "Cloud Run": ".run.app"}[platform]
    assert settings["ALLOWED_HOSTS"] == [wildcard, "www.example.com", ".example.org"]
    assert settings["CSRF_TRUSTED_ORIGINS"] == ["https://www.example.com"], "no wildcard: others' sites are below it"
    assert settings["MASSMIGRATION_BACKEND"].endswith("CloudTasksBackend")


def test_keys_that_were_replaced_are_still_accepted():
    needs(*MODULES)
    values = {**PLATFORMS["Cloud Run"], "DJANGO_SECRET_KEY": KEY, "EXAMPLE_DB": "/tmp/unused"}
    assert show_settings(**values)["SECRET_KEY_FALLBACKS"] == []
    found = show_settings(**values, DJANGO_SECRET_KEY_FALLBACKS=" one two\n")
    assert found["SECRET_KEY_FALLBACKS"] == ["one", "two"]
    refused = manage(ROOT, "check", **{**values, "DJANGO_SECRET_KEY_FALLBACK_VERSIONS": "3"})
    assert "secrets/django-secret-key/versions/3 cannot be read" in refused.stderr


def test_datastore_and_djangae_are_selected_by_the_environment():
    pytest.importorskip("djangae", reason="djangae is not installed: pip install -r requirements/test-cloud.txt")
    settings = show_settings(
        EXAMPLE_DATASTORE="1",
        GOOGLE_CLOUD_PROJECT="project",
        MASSMIGRATION_BACKEND="massmigration.backends.djangae.DjangaeBackend",
        MASSMIGRATION_TASK_LOCATION="europe-west1",
    )
    assert settings["DATABASES"]["default"]["ENGINE"] == "gcloudc.db.backends.datastore"
    assert settings["DATABASES"]["default"]["PROJECT"] == "project"
    assert {"djangae", "djangae.tasks"} <= set(settings["INSTALLED_APPS"])
    assert settings["MIDDLEWARE"][0] == "djangae.tasks.middleware.TaskEnvironmentMiddleware"
    assert settings["CLOUD_TASKS_LOCATION"] == "europe-west1"


REFUSALS = [
    ({}, "There is no secret DJANGO_SECRET_KEY: the environment variable is not set, and projects/project/secrets/"),
    ({"EXAMPLE_POSTGRES": "x", "DJANGO_SECRET_KEY": KEY}, "There is no secret PGPASSWORD: "),
    ({"DJANGO_SECRET_KEY": KEY}, "No database is named: SQLite would be lost with the instance. Set EXAMPLE_POSTGRES"),
    ({"EXAMPLE_DATASTORE": "1", "GOOGLE_CLOUD_PROJECT": ""}, "No project is named. Set GOOGLE_CLOUD_PROJECT"),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSALS, ids=[sentence[:30] for _, sentence in REFUSALS])
def test_it_refuses_to_start_with_one_sentence(values, sentence):
    needs(*MODULES)
    done = manage(ROOT, "check", **{**PLATFORMS["App Engine"], "GOOGLE_CLOUD_PROJECT": "project", **values})
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"django.core.exceptions.ImproperlyConfigured: {sentence}")
    if "secret" in sentence:
        assert "gcloud secrets create" in last
        assert "roles/secretmanager.secretAccessor" in last


def get_image_variables() -> dict[str, str]:
    """Return what ENV in the Dockerfile sets."""
    lines = re.findall(r"(?m)^ENV (.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


LOCAL_ONLY = (
    "django.core.exceptions.ImproperlyConfigured: These settings are for one's own machine: they have DEBUG and a "
)


@pytest.mark.parametrize(
    ("command", "is_image"),
    [
        (["-c", "import config.wsgi"], False),
        (["-c", "import config.wsgi"], True),
        (["example_project/manage.py", "check"], True),
        (["-m", "django", "check"], False),
    ],
    ids=["a server elsewhere", "an image elsewhere", "manage.py in an image elsewhere", "django elsewhere"],
)
def test_elsewhere_it_does_not_start_with_debug_and_a_key_that_everybody_knows(command, is_image):
    variables = {
        name: value for name, value in get_image_variables().items() if is_image and name.startswith("EXAMPLE")
    }
    values = {"DJANGO_SETTINGS_MODULE": "config.settings", **variables}

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        environment = get_environment(ROOT, **{**values, **more})
        return subprocess.run(
            [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60
        )

    done = run()
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(LOCAL_ONLY)
    assert "EXAMPLE_LOCAL=1" in last
    assert run(EXAMPLE_LOCAL="1").returncode == 0


def test_manage_py_on_ones_own_machine_needs_no_word():
    assert manage(ROOT, "check").returncode == 0


def test_the_image_is_built_from_what_the_site_needs_and_nothing_else(tmp_path):
    needed = {name for name in list_upload(tmp_path / "clean") if re.match("massmigration/|example_project/", name)}
    assert needed | {"requirements.txt"} == set(list_image(ROOT)) - {"Dockerfile"}
    hostile = [
        ".env",
        ".git/config",
        "env.yaml",
        "key.json",
        "tests/settings.py",
        "example_project/db.sqlite3",
        "example_project/db.sqlite3-wal",
        "example_project/.env",
        "example_project/data/logs/run.log",
        "example_project/places/__pycache__/models.cpython-313.pyc",
        "massmigration/debug.log",
        "massmigration/backends/.ruff_cache/x",
    ]
    kept = ["massmigration/__init__.py", "example_project/data/countries.csv", "requirements.txt"]
    for name in (*hostile, *kept):
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
    assert sorted(list_image(tmp_path / "project")) == sorted(kept)


def test_secrets_are_read_from_secret_manager():
    needs("google.cloud.secretmanager")
    done = subprocess.run(
        [sys.executable, "-c", SECRET_MANAGER], env=get_environment(ROOT), capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_check_deploy_has_nothing_to_say(platform, tmp_path):
    needs(*MODULES)
    database = str(tmp_path / "db.sqlite3")
    values = {"DJANGO_SECRET_KEY": KEY, "EXAMPLE_DB": database, "GOOGLE_CLOUD_PROJECT": "project"}
    values |= {"MASSMIGRATION_BACKEND": "massmigration.backends.cloudtasks.CloudTasksBackend"}
    values |= {"MASSMIGRATION_TASK_LOCATION": "europe-west1", "MASSMIGRATION_TASK_QUEUE": "massmigration"}
    if platform == "Cloud Run":
        values |= {"MASSMIGRATION_TASK_URL": "https://site-123.europe-west1.run.app"}
        values |= {"MASSMIGRATION_TASK_SERVICE_ACCOUNT": "tasks@project.iam.gserviceaccount.com"}
    done = manage(ROOT, "check", "--deploy", "--fail-level", "WARNING", **PLATFORMS[platform], **values)
    assert done.returncode == 0, done.stderr
