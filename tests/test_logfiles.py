"""The folder and the files of detached processes' logs: in a shared folder nobody else decides what we write to."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import pytest

from massmigration.backends.local import start_detached
from massmigration.backends.logfiles import make_log_path
from massmigration.checks import check_settings
from massmigration.exceptions import BackendUnreachable
from massmigration.management.pool import WorkerPool
from tests.test_local_backend import wait_for

OTHER_USER = 12_345
ATTEMPT = uuid.UUID(int=7)


@pytest.fixture
def give_away(monkeypatch):
    """Return what makes a path another user's: by root really, else by seeing it with the eyes of another."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, OTHER_USER, OTHER_USER, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    return give


@pytest.fixture
def folder(tmp_path, settings) -> Path:
    """Return the folder of the settings; it is not made yet."""
    settings.MASSMIGRATION_LOG_DIR = folder = tmp_path / "shared" / "massmigration-1000"
    folder.parent.mkdir()
    folder.parent.chmod(0o1777)
    return folder


def find_fault(folder: Path) -> str:
    """Return what the check and a start say, which has to be the same fact."""
    (message,) = check_settings(None)
    with pytest.raises(BackendUnreachable, match="MASSMIGRATION_LOG_DIR") as caught:
        make_log_path("testapp:0001_x", ATTEMPT)
    fact = message.msg.partition(", but ")[2].partition(". ")[0]
    assert fact in str(caught.value)
    return fact


def test_a_folder_that_we_make_is_for_us_only(folder):
    assert check_settings(None) == []
    assert make_log_path("testapp:0001_x", ATTEMPT).parent == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert make_log_path("testapp:0001_x", ATTEMPT).parent == folder, "and it may be there already"


def test_another_users_folder_is_refused(folder, give_away):
    folder.mkdir()
    give_away(folder)
    assert find_fault(folder) == f"{folder} belongs to another user"


def test_another_users_link_to_a_folder_of_ours_is_refused(folder, give_away, tmp_path):
    ours = tmp_path / "ours"
    ours.mkdir()
    folder.symlink_to(ours)
    give_away(folder)
    assert find_fault(folder) == f"{folder} belongs to another user"
    assert list(ours.iterdir()) == []


def test_our_own_link_is_followed(folder, tmp_path):
    (tmp_path / "ours").mkdir()
    folder.symlink_to(tmp_path / "ours")
    assert make_log_path("testapp:0001_x", ATTEMPT).parent == folder


def test_a_link_to_nowhere_is_refused(folder, tmp_path):
    folder.symlink_to(tmp_path / "nowhere")
    assert find_fault(folder) == f"{folder} is not a folder"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o703])
def test_a_folder_that_everybody_may_write_to_is_refused(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    assert find_fault(folder) == f"everybody may write to {folder}"


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o775])
def test_one_that_only_we_or_our_group_may_write_to_is_taken(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    assert check_settings(None) == []
    make_log_path("testapp:0001_x", ATTEMPT)


@pytest.mark.parametrize("is_made", [True, False])
def test_one_that_anybody_could_replace_is_refused(folder, is_made):
    if is_made:
        folder.mkdir()
    folder.parent.chmod(0o777)  # without the sticky bit, which /tmp has
    assert find_fault(folder) == f"everybody may replace what is in {folder.parent}"


def start(log: Path) -> None:
    start_detached([sys.executable, "-c", "print('secret')"], log)


def start_pool(log: Path) -> None:
    pool = WorkerPool([sys.executable, "-c", "print('secret')"], 1, log, lambda line: None)
    pool.start()
    pool.wait()


@pytest.mark.parametrize("write", [start, start_pool])
def test_a_log_is_for_us_only(write, tmp_path):
    log = tmp_path / "run.log"
    write(log)
    wait_for(lambda: "secret" in log.read_text())
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("write", [start, start_pool])
@pytest.mark.parametrize("trap", ["link", "link to nowhere", "hard link", "pipe", "another user's file"])
def test_what_stands_in_a_logs_place_is_not_written_to(write, trap, tmp_path, give_away):
    log, target = tmp_path / "run.log", tmp_path / "target"
    target.write_text("")
    if trap == "link":
        log.symlink_to(target)
    elif trap == "link to nowhere":
        target.unlink()
        log.symlink_to(target)
    elif trap == "hard link":
        log.hardlink_to(target)
    elif trap == "pipe":
        os.mkfifo(log)
    else:
        log.touch()
        give_away(log)
    with pytest.raises(BackendUnreachable, match=r"run\.log"):
        write(log)
    assert not target.exists() or target.read_text() == ""
