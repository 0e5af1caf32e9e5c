"""The Firestore emulator in native mode; it keeps all in memory."""

from __future__ import annotations

import os
import time

from tests.servers import gcloud
from tests.servers.processes import Server

COMPONENT = "cloud-firestore-emulator"
HOST = "FIRESTORE_EMULATOR_HOST"
LOCK_SECONDS = 90


def find_missing() -> str | None:
    """Return one line that says what to install, or None where an emulator runs or can be started."""
    return None if os.environ.get(HOST) else gcloud.find_missing(COMPONENT)


def launch() -> Server:
    """Start the emulator without waiting for it."""
    return gcloud.launch("firestore")


def reset(address: str) -> None:
    """Delete all documents of our project from the emulator at ``address``."""
    url = f"http://{address}/emulator/v1/projects/{gcloud.PROJECT}/databases/(default)/documents"
    deadline = time.monotonic() + LOCK_SECONDS
    while (status := gcloud.request("DELETE", url)) == 409 and time.monotonic() < deadline:
        time.sleep(0.5)  # a process that was killed has left a transaction, which keeps its locks for a while
    if status != 200:
        raise RuntimeError(f"The Firestore emulator at {address} was not emptied: it answered {status}.")
