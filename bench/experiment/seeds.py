"""Parses seeds, which configurations and command lines give as `3`, `0-4`, `0-2,7`, or a list of these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MOST_SEEDS, LONGEST_SEED = 100_000, 15
"""How many seeds there may be, and how many digits one may have."""
EMPTY = "one or more seeds are expected; the list or range is empty"
EXPECTED = "whole numbers from 0 on are expected, such as 3, 0-4, `0-2,7` or [0, 1, 4]"


def parse_seeds(given: Any) -> tuple[int, ...]:
    """Returns the seeds in the order given, each once.  Raises a ValueError that says what is expected."""
    seeds: dict[int, None] = {}
    for some in map(_range, _items(given)):
        if len(seeds) + len(some) > MOST_SEEDS:
            raise ValueError(f"at most {MOST_SEEDS:,} seeds are allowed")
        seeds.update(dict.fromkeys(some))
    if not seeds:
        raise ValueError(EMPTY)
    return tuple(seeds)


def _items(given: Any) -> Iterator[Any]:
    for item in given if isinstance(given, list | tuple) else [given]:
        yield from item.split(",") if isinstance(item, str) else [item]


def _range(item: Any) -> range:
    """Returns one seed, or all from the first to the last, of which there must be one."""
    if isinstance(item, int) and not isinstance(item, bool) and item >= 0:
        return range(item, item + 1)
    first, dash, last = item.strip().partition("-") if isinstance(item, str) else ("", "", "")
    numbers = (first, last) if dash else (first,)
    if not all(number.isdecimal() and len(number) <= LONGEST_SEED for number in numbers):
        raise ValueError(EXPECTED)
    found = range(int(first), int(last or first) + 1)
    if not found:
        raise ValueError(EMPTY)
    return found
