"""The tools of the contract: a clock of its own, a poisoned test split, and sentences for broken rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.protocol import Method


def require(holds: bool, sentence: str) -> None:
    """Raises AssertionError with the sentence if `holds` is false."""
    if not holds:
        raise AssertionError(sentence)


def require_same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    """Raises AssertionError that names the first number that differs between two runs' records."""
    require(len(first) == len(second), f"one run has {len(first)} records, the other {len(second)}")
    for one, other in zip(first, second, strict=True):
        for name in one:
            difference = f"{name} at step {one['step']} is {one[name]} in one run and {other.get(name)} in the other"
            require(repr(one[name]) == repr(other.get(name)), difference)


class Ticks:
    """A clock that advances by the same number of seconds at each reading."""

    def __init__(self, step: float):
        self.now, self._step = 0.0, step

    def __call__(self) -> float:
        """Returns the time, in seconds."""
        self.now += self._step
        return self.now


class Proxy:
    """An object that delegates every attribute to another one."""

    def __init__(self, of: Any):
        self._of = of

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


class Poisoned(Proxy):
    """A split that raises if it is touched while a method is at work."""

    at_work = False

    def __getattr__(self, name: str) -> Any:
        require(not self.at_work, "the method touched the test split")
        return getattr(self._of, name)

    def __iter__(self) -> Iterator[Any]:
        require(not self.at_work, "the method touched the test split")
        return iter(self._of)


class Watched(Proxy):
    """A method whose calls mark the split as poisoned."""

    def __init__(self, of: Method, poisoned: list[Poisoned]):
        super().__init__(of)
        self._poisoned = poisoned

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)

        def at_work(*arguments: Any, **options: Any) -> Any:
            self._poisoned[0].at_work = True
            try:
                return found(*arguments, **options)
            finally:
                self._poisoned[0].at_work = False

        return at_work if callable(found) else found
