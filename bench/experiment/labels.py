"""Labels, by which figures name a method or a shock."""

from __future__ import annotations

from typing import Any

LONGEST_LABEL = 200


def checked_label(label: Any) -> str:
    """Returns a label that figures can show.  Raises ValueError for any other value."""
    if isinstance(label, str) and label.strip() and label.isprintable() and len(label) <= LONGEST_LABEL:
        return label
    raise ValueError(f"one line of 1 to {LONGEST_LABEL} printable characters, not only spaces, is expected")
