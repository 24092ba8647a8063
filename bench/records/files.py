"""Opens, reads and writes files, each in one way.

A results folder may come from anyone.  So neither a file in it nor the folder that holds the file may be a link, which
could lead anywhere, and nothing is read that is not a regular file, such as a pipe, which could make the reader wait.  The
results folder itself is the user's choice and may be a link.

A file is written beside its place, flushed to the disk and renamed: it is complete, or what was there before is intact.
After a loss of power either may be there, unless the names in its folder were flushed, too.  Waiting for the disk takes
milliseconds, and so what can be made anew is not flushed, nor is a checkpoint's name: the checkpoint before it will do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bench.records.errors import ReportError, StorageError

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_FOLDERS = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP)
"""What systems answer that flush no folders, or none that may not be read."""
READING = os.O_RDONLY | os.O_NONBLOCK
APPENDING = os.O_RDWR | os.O_CREAT | os.O_APPEND
CREATING = os.O_WRONLY | os.O_CREAT | os.O_EXCL
ELSEWHERE = "choose another place with -o"


def reason(error: OSError) -> str:
    """Returns in words why the system refused."""
    if error.errno == errno.ELOOP:
        return f"{error.filename} is a link, which is not followed"
    if error.errno == errno.EEXIST:  # of a folder that is to be made
        return f"{error.filename} is not a folder"
    return error.strerror or str(error)


def check_no_link(folder: Path) -> None:
    """Raises OSError if a folder within a results folder is a link."""
    if folder.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))


def open_regular(path: Path, flags: int = READING) -> int:
    """Opens a regular file of a results folder and returns its descriptor.

    Raises:
        OSError: if it or its folder is a link, or if it is no regular file.
    """
    check_no_link(path.parent)
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def opened(path: Path) -> BinaryIO:
    """Opens a file of a results folder for reading.  Raises as `open_regular` does."""
    return os.fdopen(open_regular(path), "rb")


def read(path: Path) -> bytes:
    """Returns the content of a file of a results folder.  Raises as `open_regular` does."""
    with opened(path) as file:
        return file.read()


@contextlib.contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Turns any refusal of the system inside the block into a `StorageError` that names the folder."""
    try:
        yield
    except FileNotFoundError as error:
        remedy = "put it back and repeat the command to continue, or repeat it to start again"
        raise StorageError(f"{folder}: moved or removed while in use; {remedy}") from error
    except OSError as error:
        remedy = "free some space, then repeat the command to continue"
        if error.errno == errno.ELOOP:
            remedy = "put what it leads to in its place"
        elif error.errno not in FULL:
            remedy = "repeat the command once the folder is writable"
        raise StorageError(f"{folder}: cannot be written ({reason(error)}); all records are kept; {remedy}") from error


def check_in_place(was: os.stat_result, path: Path) -> None:
    """Raises FileNotFoundError if what was at the path is no longer there, since it or a folder was moved or removed."""
    if not os.path.samestat(was, path.stat()):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def unfinished(path: Path) -> Path:
    """Returns the path at which a file is written before it takes its place."""
    return path.with_name(f".{path.name}.part")


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Opens a file that replaces another one, complete and on the disk, or not at all.

    The folder must be locked by this process (`bench.process`).  Anything that a killed process left is overwritten.
    A file that need not be `durable` is complete after any death of a process, but perhaps not after a loss of power.
    """
    check_no_link(path.parent)
    with _replacing(path, unfinished(path), durable=durable) as file:
        yield file


@contextlib.contextmanager
def replacing_shared(path: Path) -> Iterator[BinaryIO]:
    """Opens a file as `replacing` does, in a folder where other processes may write the same file at the same time."""
    with _replacing(path, path.with_name(f".{uuid.uuid4().hex}.part")) as file:
        yield file


def write_named(path: Path, text: str) -> None:
    """Writes a text to the file that the user names.  Raises `StorageError` if it cannot be written there."""
    try:
        with replacing_shared(path) as file:
            file.write(text.encode())
    except OSError as error:
        remedy = "give the name of a file in a folder that is there and can be written"
        raise StorageError(f"{path}: cannot be written ({reason(error)}); {remedy}") from None


@contextlib.contextmanager
def _replacing(path: Path, temporary: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    temporary.unlink(missing_ok=True)  # what is created here is a new file, whatever was at that name
    try:
        with os.fdopen(os.open(temporary, CREATING, 0o666), "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            temporary.unlink()


def sync_names(folder: Path) -> None:
    """Waits until the disk has the names in a folder, so that no loss of power undoes a rename."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDERS:
            raise


def check_output(output: Path) -> None:
    """Makes the folder of a file that a command is asked to write.  Raises `ReportError` if it cannot be written there."""
    try:
        str(output).encode()
    except UnicodeEncodeError:
        raise ReportError(f"{output}: the name is not in UTF-8; {ELSEWHERE}") from None
    with _answered(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if output.exists():
            os.close(os.open(output, os.O_WRONLY | os.O_NONBLOCK))  # a file that its owner has made read-only stays
        tempfile.TemporaryFile(dir=output.parent).close()


def write_output(output: Path, content: bytes | memoryview) -> None:
    """Writes a file that a command is asked to write, following a link at its name.  Raises `ReportError`."""
    check_output(output)
    with _answered(output):
        place = Path(os.path.realpath(output))
        with replacing_shared(place) as file:
            if place.exists():
                shutil.copymode(place, file.name)
            file.write(content)


@contextlib.contextmanager
def _answered(output: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise ReportError(f"{output}: cannot be written ({why}); {ELSEWHERE}") from None
