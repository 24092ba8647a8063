"""Reads YAML with positions, so that every error in a configuration names file, line and column."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.parser import RoundTripParser

from bench.records.errors import one_line

Key = tuple[str | int, ...]
LONGEST = 200_000
"""The most characters that a file may have."""
DEEPEST, LARGEST = 30, 100_000
"""The most levels of a file, and values on one level: aliases of aliases can stand for more than any memory holds."""
INDEX = re.compile("[0-9]{1,9}")
WHOLE_NUMBERS = 2**53
"""The largest whole number: up to it floats are exact, and nothing overflows."""
MOST_DIGITS = 4_000
"""The most characters of a number that are read; Python converts no more than 4,300 digits."""


class ConfigError(Exception):
    """A mistake in a configuration or on the command line; the message is one line that says where and what is allowed."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class LimitError(ValueError):
    """A text that exceeds what a configuration may hold, and where, if that is known."""

    def __init__(self, message: str, mark: Any = None):
        super().__init__(message)
        self.place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"


@dataclass
class YamlFile:
    """A parsed file with the position of each key.  `overrides` maps keys to the `--set` texts that set them."""

    path: Path
    content: CommentedMap
    overrides: dict[Key, str] = field(default_factory=dict)

    def error(self, key: Sequence[str | int], what: str) -> ConfigError:
        """Returns a one-line error at `key`, or at the nearest enclosing key that exists."""
        for length in range(len(key), 0, -1):
            if text := self.overrides.get(tuple(key[:length])):
                return ConfigError(f"--set {text}: {what}")
        _, _, found = self._position(key)
        for place, text in self.overrides.items():
            if not found and place[: len(key)] == tuple(key):  # a mapping that the override made
                return ConfigError(f"--set {text}: {what}")
        return ConfigError(f"{self.place(key)}: {what}")

    def place(self, key: Sequence[str | int]) -> str:
        """Returns file, line and column of a key, or of the nearest enclosing key that exists."""
        line, column, _ = self._position(key)
        return f"{self.path}:{line}:{column}"

    def _position(self, key: Sequence[str | int]) -> tuple[int, int, bool]:
        """Returns line, column, and whether the whole key stands in the file."""
        node: Any = self.content
        line, column = 0, 0
        for part in key:
            try:
                if isinstance(node, CommentedMap):
                    line, column = node.lc.key(part)
                elif isinstance(node, CommentedSeq):
                    line, column = node.lc.item(part)
                node = node[part]
            except (KeyError, IndexError, TypeError, AttributeError):
                return line + 1, column + 1, False
        return line + 1, column + 1, True


def read_yaml(path: Path) -> YamlFile:
    """Parses a file that must hold a mapping."""
    return _read(path, _parse)


def read_shared_yaml(path: Path) -> YamlFile:
    """Reads a file as `read_yaml` does, but parses the same text once: the content must not be changed."""
    return _read(path, _parse_once)


def _read(path: Path, parse: Callable[[str], Any]) -> YamlFile:
    try:
        with path.open(encoding="utf-8") as file:
            content = parse(file.read(LONGEST + 1))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder; a YAML file is expected") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except LimitError as error:
        raise ConfigError(f"{path}:{error.place}: {error}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        begins = f"{error.context} " if error.context and (error.problem or "").startswith("but ") else ""
        problem = " ".join((begins + (error.problem or error.context or "not YAML")).split())
        raise ConfigError(f"{path}:{place}: {problem}") from None
    except Exception as error:  # invalid YAML may raise any exception
        raise ConfigError(f"{path}:1:1: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, CommentedMap):
        raise ConfigError(f"{path}:1:1: a mapping is expected, such as `experiment: distribution`")
    return YamlFile(path, content)


class _ShallowParser(RoundTripParser):
    """Raises LimitError before what it feeds is nested too deep for it."""

    depth = 0

    def get_event(self) -> Any:
        """Returns the next event."""
        event = super().get_event()
        self.depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if self.depth > DEEPEST:
            raise LimitError(f"nested deeper than {DEEPEST} levels", event.start_mark)
        return event


class _BoundedConstructor(RoundTripConstructor):
    """Raises LimitError at a whole number that is too large."""

    def construct_yaml_int(self, node: Any) -> Any:
        """Returns the number; of one with more digits than Python reads, only the length is looked at."""
        number = math.inf if len(node.value) > MOST_DIGITS else super().construct_yaml_int(node)
        if abs(number) > WHOLE_NUMBERS:
            raise LimitError(f"a whole number beyond {WHOLE_NUMBERS}", node.start_mark)
        return number


_BoundedConstructor.add_constructor("tag:yaml.org,2002:int", _BoundedConstructor.construct_yaml_int)


def _parse(text: str) -> Any:
    """Returns a text's content.  Raises LimitError if it is too long, deep or large, any exception if it is not YAML."""
    if len(text) > LONGEST:
        raise LimitError(f"longer than {LONGEST:,} characters")
    loader = YAML()
    loader.Parser, loader.Constructor = _ShallowParser, _BoundedConstructor
    loader.composer.warn_double_anchors = False
    content = loader.load(text)
    level = [content]
    for _ in range(DEEPEST + 1):
        level = list(islice(chain.from_iterable(map(_children, level)), LARGEST))
        if len(level) == LARGEST:
            raise LimitError(f"more than {LARGEST:,} values")
        if not level:
            return content
    raise LimitError("an alias within what it stands for")


_parse_once = lru_cache(maxsize=128)(_parse)


def _children(node: Any) -> Sequence[Any]:
    if isinstance(node, CommentedMap):
        return list(node.values())
    return node if isinstance(node, CommentedSeq) else ()


def override(file: YamlFile, text: str) -> None:
    """Applies one override `a.b=c`; a unit of the budget replaces the file's."""
    dotted, equals, value_text = text.partition("=")
    parts: list[str | int] = [int(part) if INDEX.fullmatch(part) else part for part in dotted.split(".")]
    if not equals or "" in parts or len(parts) > DEEPEST:
        raise ConfigError(f"--set {text}: expected KEY=VALUE with dots between keys, such as budget.steps=400")
    value = parse_value(text, value_text)
    if parts[0] == "budget" and len(parts) == 2:
        file.content["budget"] = CommentedMap()
    node: Any = file.content
    for part in parts[:-1]:
        if isinstance(node, CommentedMap) and part not in node:
            node[part] = CommentedMap()
        node = _child(node, part, text)
    if isinstance(node, CommentedSeq):
        _child(node, parts[-1], text)
    elif not isinstance(node, CommentedMap):
        raise ConfigError(f"--set {text}: {dotted.rpartition('.')[0]} is not a mapping")
    node[parts[-1]] = value
    file.overrides[tuple(parts)] = text


def parse_value(text: str, value: str) -> Any:
    """Returns the parsed value of an override; `text` is the whole override, for the error."""
    try:
        return _parse(value)
    except LimitError as error:
        raise ConfigError(f"--set {text}: {error}") from None
    except Exception:  # as for a file
        raise ConfigError(f"--set {text}: the value is not YAML") from None


def _child(node: Any, part: str | int, text: str) -> Any:
    try:
        return node[part]
    except (KeyError, IndexError, TypeError):
        raise ConfigError(f"--set {text}: there is no {part!r} to go into; {_inside(node)}") from None


def _inside(node: Any) -> str:
    """Says what a path may go into from here."""
    if isinstance(node, CommentedSeq):
        return f"allowed are 0 to {len(node) - 1}" if node else "the list is empty"
    return "what comes before it is neither a mapping nor a list"
