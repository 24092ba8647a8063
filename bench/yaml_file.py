"""YAML with positions: every complaint about a configuration names file, line and column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

Key = tuple[str | int, ...]


class ConfigError(Exception):
    """A mistake in a configuration or on the command line; the message is one line that says where and what is allowed."""


@dataclass
class YamlFile:
    """A parsed file, and where each of its keys stands.  `overrides` are the `--set` texts by the key they set."""

    path: Path
    content: CommentedMap
    overrides: dict[Key, str] = field(default_factory=dict)

    def error(self, key: Sequence[str | int], what: str) -> ConfigError:
        """A one-line error at `key`, or at the nearest enclosing key that exists."""
        for length in range(len(key), 0, -1):
            if text := self.overrides.get(tuple(key[:length])):
                return ConfigError(f"--set {text}: {what}")
        line, column, found = self._position(key)
        for place, text in self.overrides.items():
            if not found and place[: len(key)] == tuple(key):  # a mapping that the override made
                return ConfigError(f"--set {text}: {what}")
        return ConfigError(f"{self.path}:{line}:{column}: {what}")

    def _position(self, key: Sequence[str | int]) -> tuple[int, int, bool]:
        """Line, column, and whether the whole key stands in the file."""
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
    try:
        content = YAML().load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        problem = " ".join((error.problem or error.context or "not YAML").split())
        raise ConfigError(f"{path}:{place}: {problem}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}:1:1: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, CommentedMap):
        raise ConfigError(f"{path}:1:1: a mapping is expected, such as `experiment: distribution`")
    return YamlFile(path, content)


def override(file: YamlFile, text: str) -> None:
    """Applies one `a.b=c`; a unit of the budget replaces whichever the file has."""
    dotted, equals, value_text = text.partition("=")
    parts: list[str | int] = [int(part) if part.isdigit() else part for part in dotted.split(".")]
    if not equals or "" in parts:
        raise ConfigError(f"--set {text}: expected KEY=VALUE with dots between keys, such as budget.steps=400")
    try:
        value = YAML().load(value_text)
    except YAMLError:
        raise ConfigError(f"--set {text}: the value is not YAML") from None
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


def _child(node: Any, part: str | int, text: str) -> Any:
    try:
        return node[part]
    except (KeyError, IndexError, TypeError):
        raise ConfigError(f"--set {text}: there is no {part!r} to go into") from None
