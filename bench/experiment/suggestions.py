"""Suggests what a misspelt name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: object, known: Iterable[str], *, most: int = 1) -> str:
    """Returns `did you mean 'fixed'? `, with the nearest of the known names, or an empty string if none is near."""
    close = difflib.get_close_matches(str(name), list(dict.fromkeys(known)), n=most)
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""
