"""The Google Cloud CLI, which starts the emulators of Datastore and Firestore, and Java, in which they run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from tests.servers.processes import KILL_GROUP, Server, get_free_port, start

PROJECT = "test"

INSTALL_GCLOUD = "gcloud is not installed: install the Google Cloud CLI (https://cloud.google.com/sdk/docs/install)."
INSTALL_JAVA = "Java is not installed: install version 17 or later (Debian: apt install default-jre-headless)."
INSTALL_COMPONENT = (
    "gcloud has no {component}: gcloud components install beta {component} "
    "(Debian: apt install google-cloud-cli-{short})."
)

# A proxy of the machine must not come between us and our own servers.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def find_missing(component: str) -> str | None:
    """Return one line that says what to install to start ``component``, or None where it can be started."""
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        return INSTALL_GCLOUD
    java = shutil.which("java")
    if java is None or subprocess.run([java, "-version"], capture_output=True).returncode != 0:
        return INSTALL_JAVA
    if not (_get_root(gcloud) / "platform" / component).is_dir():
        return INSTALL_COMPONENT.format(component=component, short=component.removeprefix("cloud-"))
    return None


def _get_root(gcloud: str) -> Path:
    root = Path(gcloud).resolve().parent.parent
    if (root / "platform").is_dir():
        return root
    command = [gcloud, "info", "--format=value(installation.sdk_root)"]
    return Path(subprocess.run(command, capture_output=True, text=True).stdout.strip())


def launch(emulator: str, *options: str) -> Server:
    """Start an emulator on a free port, without waiting for it.

    Args:
        emulator: The name that gcloud knows it by, ``datastore`` or ``firestore``.
        options: More options of ``gcloud beta emulators … start``.
    """
    directory = Path(tempfile.mkdtemp(prefix=f"massmigration-{emulator}-"))
    port = get_free_port()
    command = ["gcloud", "beta", "emulators", emulator, "start", f"--project={PROJECT}"]
    command += [f"--host-port=127.0.0.1:{port}", "--quiet", *options]
    # With a directory of its own for settings and logs gcloud leaves those of the user alone.
    environment = {**get_environment(), "CLOUDSDK_CONFIG": str(directory / "gcloud")}
    return start(f"The {emulator} emulator", port, command, directory, stop=KILL_GROUP, env=environment)


def get_environment() -> dict[str, str]:
    """Return the environment of an emulator: one that lives for minutes is compiled quickly, not well."""
    options = [os.environ.get("JAVA_TOOL_OPTIONS", ""), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    return {**os.environ, "JAVA_TOOL_OPTIONS": " ".join(options).strip()}


def is_ready(server: Server) -> bool:
    """Return whether our emulator answers, and not another server that took its port before it."""
    if "now running" not in server.read_log():
        return False
    try:
        return request("GET", f"http://{server.address}/") == 200
    except OSError:
        return False


def request(method: str, url: str) -> int:
    """Send a request without a body to an emulator and return the status of its answer."""
    asked = urllib.request.Request(url, method=method, data=b"" if method == "POST" else None)
    try:
        with _opener.open(asked, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
