"""The Datastore emulator: Firestore in Datastore mode, all of it in memory."""

from __future__ import annotations

import os

from tests.servers import gcloud
from tests.servers.processes import Server

COMPONENT = "cloud-datastore-emulator"
HOST = "DATASTORE_EMULATOR_HOST"


def find_missing() -> str | None:
    """Return one line that says what to install, or None where an emulator runs or can be started."""
    return None if os.environ.get(HOST) else gcloud.find_missing(COMPONENT)


def launch() -> Server:
    """Start the emulator without waiting for it."""
    return gcloud.launch("datastore", "--data-dir=data", "--no-store-on-disk", "--use-firestore-in-datastore-mode")


def reset(address: str) -> None:
    """Empty the emulator at ``address``, all projects of it."""
    status = gcloud.request("POST", f"http://{address}/reset")
    if status != 200:
        raise RuntimeError(f"The Datastore emulator at {address} was not reset: it answered {status}.")
