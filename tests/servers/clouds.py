"""All emulators of one test run: which are missing, starting them side by side, and emptying them."""

from __future__ import annotations

import os

from tests.servers import cloudtasks, datastore, firestore, gcloud
from tests.servers.processes import Server, get_free_port, is_test_run

# Names the emulators that a test run started: only these are emptied as a whole.
OWN = "MASSMIGRATION_TEST_EMULATORS"


def find_missing() -> list[str]:
    """Return for each thing that the tests on the clouds need and that is not there one line that says what to do."""
    lines = [module.find_missing() for module in (cloudtasks, datastore, firestore)]
    return list(dict.fromkeys(line for line in lines if line))


def start_emulators() -> None:
    """Start the emulators that the environment does not name, and name them in it.

    Returns at once; ``wait_for_emulators`` waits. Outside a test run nothing is started.
    """
    os.environ.setdefault("GOOGLE_CLOUD_PROJECT", gcloud.PROJECT)
    os.environ.setdefault("DATASTORE_PROJECT_ID", gcloud.PROJECT)
    if not is_test_run():
        return
    if not os.environ.get(datastore.HOST):
        _note(datastore.HOST, datastore.launch())
    if not os.environ.get(firestore.HOST):
        _note(firestore.HOST, firestore.launch())
    if not os.environ.get(cloudtasks.HOST):
        os.environ[cloudtasks.TARGET] = f"127.0.0.1:{get_free_port()}"
        _note(cloudtasks.HOST, cloudtasks.launch(cloudtasks.get_target_port()))


_starting: dict[str, Server] = {}


def _note(variable: str, server: Server) -> None:
    os.environ[variable] = server.address
    os.environ[OWN] = f"{os.environ.get(OWN, '')} {server.address}".strip()
    _starting[variable] = server


def wait_for_emulators() -> None:
    """Return when all emulators that ``start_emulators`` started are ready.

    Raises:
        RuntimeError: One of them ended, or was not ready in time; the message has its log.
    """
    while _starting:
        variable, server = _starting.popitem()
        server.wait(cloudtasks.is_ready if variable == cloudtasks.HOST else gcloud.is_ready)


def is_own(variable: str) -> bool:
    """Return whether a test run of ours started the emulator that the environment variable names."""
    return os.environ.get(variable, "-") in os.environ.get(OWN, "").split()


def empty_databases() -> None:
    """Empty the emulators of Datastore and Firestore that a test run of ours started; others are left alone."""
    if is_own(datastore.HOST):
        datastore.reset(os.environ[datastore.HOST])
    if is_own(firestore.HOST):
        firestore.reset(os.environ[firestore.HOST])
