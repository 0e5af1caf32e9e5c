"""The conformance suite over the backends that put tasks on Cloud Tasks, delivered to a site in another process."""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from massmigration import testing
from tests import servers
from tests.conftest import ROOT, get_environment
from tests.servers import cloudtasks, processes
from tests.servers.googletasks import Google


class OnCloudTasks(testing.BackendConformance):
    """Makes a queue and starts a site with the backend; ``backend`` is the only setting that differs."""

    quiet_seconds = 0.5

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        name = f"conformance-{uuid.uuid4().hex}"
        cls.extra_settings = {"MASSMIGRATION_TASK_QUEUE": name, "MASSMIGRATION_TASK_LOCATION": cloudtasks.LOCATION}
        cls.queue_path = cloudtasks.get_queue_path(name)
        cls.cloud = cloudtasks.get_client()
        cls.addClassCleanup(cls.cloud.transport.close)
        cls.cloud.create_queue(parent=cls.queue_path.rpartition("/queues/")[0], queue={"name": cls.queue_path})
        cls.addClassCleanup(cls.cloud.delete_queue, name=cls.queue_path)
        site = start_site(MASSMIGRATION_TEST_BACKEND=cls.backend, MASSMIGRATION_TEST_QUEUE=name)
        cls.addClassCleanup(site.stop)

    @contextmanager
    def unreachable(self):
        nowhere = f"127.0.0.1:{servers.get_free_port()}"
        with mock.patch.dict(os.environ, {cloudtasks.HOST: nowhere}):
            yield

    @contextmanager
    def losing(self):
        forgetful = Google()  # on a queue that is paused, no migration can be started
        with mock.patch.dict(os.environ, {cloudtasks.HOST: f"127.0.0.1:{forgetful.port}"}):
            yield
        forgetful.server.stop(None)


def start_site(**environment):
    """Start gunicorn where the emulator sends tasks for App Engine to, and wait until it answers."""
    port = cloudtasks.get_target_port()
    command = [sys.executable, "-m", "gunicorn", "--threads=8", f"--bind=127.0.0.1:{port}"]
    command += ["django.core.wsgi:get_wsgi_application()", f"--chdir={ROOT}"]
    environment |= {"DJANGO_SETTINGS_MODULE": "tests.cloud.conformance_settings", "PYTHONPATH": str(ROOT)}
    directory = Path(tempfile.mkdtemp(prefix="massmigration-site-"))
    site = processes.start("The site", port, command, directory, env=get_environment(environment))
    site.wait(lambda server: servers.is_listening(server.port))
    return site


class TestDjangaeBackend(OnCloudTasks):
    backend = "massmigration.backends.djangae.DjangaeBackend"


class TestCloudTasksBackend(OnCloudTasks):
    backend = "massmigration.backends.cloudtasks.CloudTasksBackend"
