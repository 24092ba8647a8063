"""What a dashboard is made of, whether W&B draws it or our preview does.  Nothing here knows of either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import pandas as pd


class Quantity(NamedTuple):
    """What an axis shows: a column of the tables; of a hyperparameter with several sets, that of `part` or their median."""

    column: str
    title: str
    part: int | Literal["median"] | None = None


@dataclass(frozen=True)
class Lines:
    """Medians over the runs of a group, with the range of these runs, against `x`; a line for each group and quantity."""

    title: str
    x: Quantity
    y: tuple[Quantity, ...]
    is_log: bool = True


@dataclass(frozen=True)
class Bars:
    """Medians over the runs of a group of what each run ended with; with one quantity, with the range of these runs."""

    title: str
    x: tuple[Quantity, ...]
    axis: str


@dataclass(frozen=True)
class Points:
    """A point for each run: what it ended with against what it started with."""

    title: str
    x: Quantity
    y: Quantity


class Table(NamedTuple):
    """A table of texts."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Text:
    """A sentence and a table: what was known when the dashboard was written."""

    title: str
    sentence: str
    table: Table


Panel = Lines | Bars | Points | Text


@dataclass(frozen=True)
class Section:
    """Panels under a name; `figure` is the figure of the report that asks the same."""

    name: str
    panels: tuple[Panel, ...]
    figure: str = ""


class Group(NamedTuple):
    """The runs that share a label, their shock included, with the colour of their method."""

    label: str
    family: str
    colour: str


@dataclass(frozen=True)
class Dashboard:
    """The dashboard of the runs of one experiment on one task.

    `groups` are in the order of our figures.  `runs` and `evaluations` have whole labels, as W&B has.
    """

    title: str
    experiment: str
    task: str
    setting: str
    groups: tuple[Group, ...]
    sections: tuple[Section, ...]
    runs: pd.DataFrame
    evaluations: pd.DataFrame

    def families(self) -> dict[str, list[Group]]:
        """Returns the groups of each family, in order."""
        found: dict[str, list[Group]] = {}
        for group in self.groups:
            found.setdefault(group.family, []).append(group)
        return found
