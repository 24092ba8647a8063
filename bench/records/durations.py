"""Durations and budgets in words."""

from __future__ import annotations


def format_seconds(seconds: float) -> str:
    """Returns a duration such as `7 s`, `3 min 20 s` or `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plural(count: int, noun: str) -> str:
    """Returns `1 run`, `2 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def unit_name(unit: str) -> str:
    """Returns what a budget's unit is called: `plain steps`."""
    return unit.replace("_", " ")


def amount_of(amount: float, unit: str) -> str:
    """Returns an amount in a budget's unit: `1 epoch`, `400 plain steps`."""
    return f"{amount:g} {unit_name(unit).removesuffix('s' if amount == 1 else '')}"
