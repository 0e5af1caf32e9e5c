"""All emulators of one test run: which are missing, starting them side by side, and emptying them."""

from __future__ import annotations

import os

from tests.servers import cloudtasks, datastore, firestore, gcloud
from tests.servers.processes import Server, get_free_port

# Names the emulators that a test run started: only these are emptied as a whole.
OWN = "MASSMIGRATION_TEST_EMULATORS"


def find_missing() -> list[str]:
    """Return for each thing that the tests on the clouds need and that is not there one line that says what to do."""
    lines = [module.find_missing() for module in (cloudtasks, datastore, firestore)]
    return list(dict.fromkeys(line for line in lines if line))


def name_project() -> None:
    """Name our project in the environment, where Google's libraries look for it."""
    os.environ.setdefault("GOOGLE_CLOUD_PROJECT", gcloud.PROJECT)
    os.environ.setdefault("DATASTORE_PROJECT_ID", gcloud.PROJECT)


def start_emulators() -> None:
    """Start the emulators that the environment does not name, name them in it, and return when they are ready.

    Each worker of pytest-xdist starts its own, since a test leaves them empty.

    Raises:
        RuntimeError: One of them ended, or was not ready in time; the message has its log.
    """
    if not os.environ.get(datastore.HOST):
        _note(datastore.HOST, datastore.launch())
    if not os.environ.get(firestore.HOST):
        _note(firestore.HOST, firestore.launch())
    if not os.environ.get(cloudtasks.HOST):
        os.environ[cloudtasks.TARGET] = f"127.0.0.1:{get_free_port()}"
        _note(cloudtasks.HOST, cloudtasks.launch(cloudtasks.get_target_port()))
    while _starting:
        variable, server = _starting.popitem()
        server.wait(cloudtasks.is_ready if variable == cloudtasks.HOST else gcloud.is_ready, seconds=300)


_starting: dict[str, Server] = {}


def _note(variable: str, server: Server) -> None:
    os.environ[variable] = server.address
    os.environ[OWN] = f"{os.environ.get(OWN, '')} {server.address}".strip()
    _starting[variable] = server


def is_own(variable: str) -> bool:
    """Return whether a test run of ours started the emulator that the environment variable names."""
    return os.environ.get(variable, "-") in os.environ.get(OWN, "").split()


def empty_databases() -> None:
    """Empty the emulators of Datastore and Firestore that a test run of ours started; others are left alone."""
    if is_own(datastore.HOST):
        datastore.reset(os.environ[datastore.HOST])
    if is_own(firestore.HOST):
        firestore.reset(os.environ[firestore.HOST])
