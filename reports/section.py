"""One figure's part of the report."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.records.errors import BrokenFigureError
from reports.loading import Figure


@dataclass(frozen=True)
class Section:
    """Title, sentences and image (SVG) of a figure.  `image` is None where `caption` says why there is no figure."""

    title: str
    question: str
    method: str
    findings: list[str]
    caption: str
    image: str | None
    published: list[list[str]] = field(default_factory=list)
    """Header and rows of ours beside the published values; empty where there are none."""
    headline: bool = False
    """Whether its first finding stands in the abstract."""

    @classmethod
    def empty(cls, figure: Figure, reason: str) -> Section:
        """Returns the section of a figure that cannot be drawn."""
        return cls(figure.entry.title, figure.question, figure.method, [], reason, None)

    @classmethod
    def broken(cls, title: str, error: BrokenFigureError) -> Section:
        """Returns the section of a figure that fails."""
        return cls(title, "", "", [], f"This figure could not be made. {error}", None)
