"""The logs of worker processes: a folder that no other user controls, and files that only we can read."""

from __future__ import annotations

import os
import re
import stat
import uuid
from pathlib import Path
from typing import BinaryIO, Final

from massmigration.conf import conf
from massmigration.exceptions import BackendUnreachable

ROOT_USER: Final = 0


def find_log_dir_fault(folder: Path) -> str:
    """Return why logs must not or cannot be written there, or an empty string; makes no folder.

    The default is in the temporary folder, where any user of the machine may have made a folder or a link of that name
    first.
    """
    folder = folder.absolute()
    place = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), Path("/"))
    if not place.is_dir():
        return f"{place} is not a folder"
    if place == folder and (fault := _find_strangers(folder)):
        return fault
    real = place.resolve()
    for parent in (real, *real.parents)[1 if place == folder else 0 :]:
        mode = parent.stat().st_mode
        if _has_users() and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"everybody may replace what is in {parent}"
    return "" if os.access(place, os.W_OK | os.X_OK) else f"{place} cannot be written to"


def _find_strangers(folder: Path) -> str:
    if not _has_users():
        return ""
    found = folder.stat()
    if not {folder.lstat().st_uid, found.st_uid} <= {os.geteuid(), ROOT_USER}:
        return f"{folder} belongs to another user"
    return f"everybody may write to {folder}" if found.st_mode & stat.S_IWOTH else ""


def _has_users() -> bool:
    return hasattr(os, "geteuid")  # Windows has not


def make_log_path(key: str, attempt_uuid: uuid.UUID) -> Path:
    """Return where the worker processes of an attempt write to; the folder is made.

    Raises:
        BackendUnreachable: The folder cannot be made, or another user controls it.
    """
    folder = conf.log_dir
    fault = find_log_dir_fault(folder)
    if not fault:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            fault = f"it cannot be made: {error.strerror}"
        else:
            fault = find_log_dir_fault(folder)  # another user may have been faster
    if fault:
        raise BackendUnreachable(
            f"Logs cannot be written to {folder}: {fault}. Set MASSMIGRATION_LOG_DIR to a folder that only you can "
            "write to."
        )
    name = re.sub(r"\W+", "-", key)
    return folder / f"{name}-{attempt_uuid.hex[:8]}.log"


def open_log(path: Path) -> BinaryIO:
    """Open a log to append to it; a new one can be read by its owner only.

    Raises:
        OSError: It cannot be opened, or it is a link, a pipe or another user's file.
    """
    # Without O_NONBLOCK, opening a pipe without a reader would wait forever.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags, 0o600)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or (_has_users() and found.st_uid != os.geteuid()):
            raise PermissionError(f"{path} is not a plain file of ours")
        if hasattr(os, "O_NONBLOCK"):
            os.set_blocking(handle, True)
        return os.fdopen(handle, "ab")
    except BaseException:
        os.close(handle)
        raise
