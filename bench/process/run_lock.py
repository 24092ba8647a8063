"""Locks by which several runners share a results folder: a run, or the list of plans, belongs to the holder of its lock.

The system releases a lock when its owner dies, on this machine or, over NFS, on another one.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = ".claim"
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


@contextmanager
def claimed(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Claims the folder for the block and yields whether that succeeded; with `wait`, waits until the folder is free.

    Raises OSError if the folder cannot be written or is a link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
    path = folder / NAME
    handle = _lock(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        if _is_at(handle, path):  # otherwise the folder was moved away, and this may be another runner's claim
            path.unlink(missing_ok=True)
        os.close(handle)


def _lock(path: Path, how: int) -> int | None:
    """Returns an open file that holds the lock, or None if another process holds it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, how)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return handle  # a file system without locks can have only one runner
            os.close(handle)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return None
            raise
        if _is_at(handle, path):
            return handle
        os.close(handle)  # its owner removed it between our opening and locking it


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False
