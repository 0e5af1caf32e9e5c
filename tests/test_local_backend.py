"""LocalBackend: detached processes that outlive their starter, and refusals of what cannot work."""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path

import pytest
from django.db import connections

from massmigration.backends.base import BaseBackend, get_backend
from massmigration.backends.local import (
    LocalBackend,
    check_second_process,
    make_environment,
    make_worker_command,
    start_detached,
)
from massmigration.backends.logfiles import make_log_path
from massmigration.definitions.simple import SimpleMigration
from massmigration.exceptions import BackendUnreachable, ConfigurationError


def wait_for(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_detached_process_is_nobodys_child_and_its_output_goes_to_the_log(tmp_path):
    log = tmp_path / "run.log"
    code = "import os, time; print('mine', os.getpid(), os.getppid(), os.getsid(0), flush=True); time.sleep(0.5)"
    start_detached([sys.executable, "-c", code], log)
    wait_for(lambda: "mine" in log.read_text())
    pid, _, session = log.read_text().split("mine")[1].split()[:3]
    assert int(session) != os.getsid(0)
    with pytest.raises(ChildProcessError):
        os.waitpid(int(pid), os.WNOHANG)
    assert log.read_text().startswith("--- started ")


def test_what_cannot_be_started_is_told(tmp_path, settings):
    with pytest.raises(BackendUnreachable, match="could not be started"):
        start_detached([sys.executable, "-c", ""], tmp_path / "no such folder" / "run.log")
    (tmp_path / "file").touch()
    settings.MASSMIGRATION_LOG_DIR = tmp_path / "file" / "logs"
    with pytest.raises(BackendUnreachable, match="MASSMIGRATION_LOG_DIR"):
        make_log_path("testapp:0001_x", uuid.uuid4())


def test_the_command_names_interpreter_migration_database_and_attempt(settings):
    settings.MASSMIGRATION_PYTHON = "/bin/sh"
    attempt = uuid.uuid4()
    command = make_worker_command("testapp:0001_x", "postgres", attempt)
    assert command[:6] == ["/bin/sh", "-m", "django", "massmigrate", "testapp", "0001_x"]
    assert {"--database=postgres", f"--attempt={attempt}"} <= set(command)


@pytest.mark.parametrize("content", [None, "not executable"])
def test_an_interpreter_that_cannot_be_started_is_told_before_the_start(tmp_path, settings, content):
    python = tmp_path / "python"
    if content is not None:
        python.write_text(content)
    settings.MASSMIGRATION_PYTHON = str(python)
    settings.MASSMIGRATION_LOG_DIR = tmp_path / "logs"
    with pytest.raises(BackendUnreachable, match=f"MASSMIGRATION_PYTHON: {python} is not an executable file"):
        LocalBackend(None, {}).launch("testapp:0001_x", "default", uuid.uuid4(), [])
    assert not list(tmp_path.glob("logs/*.log"))


def test_the_environment_finds_the_same_settings_and_modules():
    environment = make_environment()
    assert environment["DJANGO_SETTINGS_MODULE"] == "tests.settings"
    assert str(Path.cwd()) in environment["PYTHONPATH"].split(os.pathsep)


@pytest.mark.parametrize("variable", ["GAE_ENV", "K_SERVICE"])
@pytest.mark.parametrize(("origin", "is_refused"), [("admin", True), ("api", True), ("command", False)])
@pytest.mark.django_db
def test_a_host_that_ends_processes_with_the_request_is_refused(monkeypatch, variable, origin, is_refused):
    monkeypatch.setenv(variable, "standard")
    backend = LocalBackend(None, {})
    if is_refused:
        with pytest.raises(ConfigurationError, match="MASSMIGRATION_BACKEND"):
            backend.check_launch("default", origin=origin)
    else:
        backend.check_launch("default", origin=origin)


@pytest.mark.django_db
def test_a_database_in_memory_has_no_second_process(monkeypatch):
    monkeypatch.setattr(connections["default"], "is_in_memory_db", lambda: True)
    with pytest.raises(ConfigurationError, match="lives in this process's memory"):
        check_second_process("default")


@pytest.mark.usefixtures("django_db_setup")  # before it the database is one in memory, which is refused as well
def test_without_a_settings_module_there_is_no_second_process(monkeypatch):
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    with pytest.raises(ConfigurationError, match="DJANGO_SETTINGS_MODULE"):
        check_second_process("default")


class Quiet(SimpleMigration):
    pass


def test_the_migrations_backend_goes_before_the_setting(settings):
    assert isinstance(get_backend(Quiet("testapp", "0001_x")), LocalBackend)
    settings.MASSMIGRATION_TASK_QUEUE = "slow"
    assert get_backend(Quiet("testapp", "0001_x")).queue_name == "slow"
    mine = type("Mine", (Quiet,), {"backend": f"{__name__}.Mine", "queue_name": "fast", "backend_params": {"a": 1}})(
        "testapp", "0001_x"
    )
    backend = get_backend(mine)
    assert (type(backend), backend.queue_name, backend.params) == (Mine, "fast", {"a": 1})


class Mine(BaseBackend):
    def enqueue(self, task, arguments, *, db_alias, delay_seconds=0, name=""):
        raise AssertionError("nothing is enqueued here")


@pytest.mark.parametrize("path", ["no.such.Backend", "massmigration.conf.conf", "nodots"])
def test_a_backend_that_is_none_is_refused(settings, path):
    settings.MASSMIGRATION_BACKEND = path
    with pytest.raises(ConfigurationError, match=f"The backend '{path}'"):
        get_backend(Quiet("testapp", "0001_x"))
