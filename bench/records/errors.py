"""Errors that are reported to the user in one line, without a traceback."""

from __future__ import annotations

LONGEST_MESSAGE = 1_000


class DataError(Exception):
    """A data set that is not available; the message says what to do."""


def one_line(text: str) -> str:
    """Returns the message shortened, with every character escaped that would break a line or a terminal."""
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[: LONGEST_MESSAGE // 2]} ... {text[-LONGEST_MESSAGE // 2 :]}"
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class RecordError(Exception):
    """A results folder that cannot be read; the message, one line, starts with `file:line:column`."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class ReportError(Exception):
    """A report or figure that cannot be made; the message is one line that says what to do."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class BrokenFigureError(ReportError):
    """A figure that fails while it is made; the message is one line."""


class StorageError(Exception):
    """A results folder that cannot be written; the message says how to make it writable again."""


class DeviceLostError(Exception):
    """A GPU that no longer answers this process, as after an error within a kernel; it may answer another one."""


class ClusterError(Exception):
    """A cluster that cannot be reached or cannot make the runs; the message is one line that says what to do."""

    def __init__(self, message: str):
        super().__init__(one_line(message))
