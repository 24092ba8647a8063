"""Errors that are a user's to mend: one line each, no traceback."""

from __future__ import annotations


class DataError(Exception):
    """A data set that cannot be had; the message says what to do."""
