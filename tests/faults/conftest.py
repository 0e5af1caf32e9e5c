"""Fixtures of the faults: children that can be killed, chance that can be repeated, and what was counted."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import get_environment
from tests.faults.nursery import Nursery
from tests.faults.queues import FolderBackend
from tests.faults.tally import counted_faults  # noqa: F401

FILES = {"testapp": "tests.faults.massmigrations", "adminapp": None}


def open_nursery(directory: Path, environment: Mapping[str, str]) -> Iterator[Nursery]:
    """Yield what forks processes; they keep their tasks in a folder that this process sees, too."""
    (directory / "queue").mkdir()
    os.environ[FolderBackend.FOLDER] = str(directory / "queue")
    started = Nursery(directory, {**environment, FolderBackend.FOLDER: os.environ[FolderBackend.FOLDER]})
    yield started
    started.close()
    del os.environ[FolderBackend.FOLDER]


@pytest.fixture(scope="session")
def nursery(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Return what forks processes that know the test databases."""
    changes = {"DJANGO_SETTINGS_MODULE": "tests.faults.settings", "MASSMIGRATION_TEST_LEASE_SECONDS": "0.3"}
    yield from open_nursery(tmp_path_factory.mktemp("nursery"), get_environment(changes))


@pytest.fixture
def faulty(settings: Any) -> None:
    """Use the migrations of this folder."""
    settings.MASSMIGRATION_MODULES = FILES


@pytest.fixture
def seed() -> int:
    """Return a seed, printed when the test fails; MASSMIGRATION_TEST_SEED=… gives one to repeat a failure."""
    number = int(os.environ.get("MASSMIGRATION_TEST_SEED", random.randrange(10**6)))
    print(f"MASSMIGRATION_TEST_SEED={number}")
    return number


@pytest.fixture
def chance(seed: int) -> random.Random:
    """Return chance that can be repeated."""
    return random.Random(seed)


@pytest.fixture
def queue_folder(nursery: Nursery) -> Path:
    """Return the folder of the tasks, empty."""
    FolderBackend.empty()
    return FolderBackend.get_folder()
