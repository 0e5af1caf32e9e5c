"""The emulator of Cloud Tasks (gcloud-tasks-emulator), which delivers tasks by real HTTP requests."""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.servers.gcloud import PROJECT
from tests.servers.processes import KILL_GROUP, Server, get_free_port, is_listening, start

HOST = "TASKS_EMULATOR_HOST"
TARGET = "MASSMIGRATION_TEST_TASKS_TARGET"
LOCATION = "europe-west1"

PACKAGES = (
    "gcloudc",
    "djangae",
    "google.cloud.tasks_v2",
    "google.cloud.logging",
    "gcloud_tasks_emulator",
    "gunicorn",
    "requests",
)
INSTALL_PACKAGES = "The Python packages of the clouds are not installed: pip install -r requirements/test-cloud.txt."


def find_missing() -> str | None:
    """Return one line that says what to install, or None where all packages are there."""
    return None if all(_is_installed(name) for name in PACKAGES) else INSTALL_PACKAGES


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


def launch(target_port: int) -> Server:
    """Start an emulator without waiting for it.

    Args:
        target_port: The port of this machine to which it sends tasks for App Engine; a task for an HTTP target
            has its own address.
    """
    directory = Path(tempfile.mkdtemp(prefix="massmigration-cloudtasks-"))
    port = get_free_port()
    command = [sys.executable, "-u", "-m", "gcloud_tasks_emulator", "start", f"--port={port}"]
    command += ["--target-host=127.0.0.1", f"--target-port={target_port}"]
    return start("The Cloud Tasks emulator", port, command, directory, stop=KILL_GROUP)


def is_ready(server: Server) -> bool:
    """Return whether our emulator answers, and not another server that took its port before it."""
    return "Starting API server" in server.read_log() and is_listening(server.port)


def get_target_port() -> int:
    """Return the port to which this run's emulator sends tasks for App Engine: there a test's site has to listen."""
    return int(os.environ[TARGET].rpartition(":")[2])


def get_client(address: str | None = None) -> Any:
    """Return a ``CloudTasksClient`` of the emulator at ``address``; without it, of this run's."""
    import grpc
    from google.cloud.tasks_v2 import CloudTasksClient
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

    channel = grpc.insecure_channel(address or os.environ[HOST])
    return CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))


def get_queue_path(name: str) -> str:
    """Return the full name of a queue of our project."""
    return f"projects/{PROJECT}/locations/{LOCATION}/queues/{name}"
