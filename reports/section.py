"""One figure's part of the report."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bench.records.errors import BrokenFigureError
from reports.claims import Verdict
from reports.loading import Figure


@dataclass(frozen=True)
class Section:
    """Title, sentences and image (SVG) of a figure.  `image` is None where `caption` says why there is no figure.

    Where a figure's experiments cannot be compared, each has a section, which names it.
    """

    name: str
    title: str
    question: str
    method: str
    findings: list[str]
    caption: str
    image: str | None
    published: list[list[str]] = field(default_factory=list)
    """Header and rows of ours beside the published values; empty where there are none."""
    verdicts: list[Verdict] = field(default_factory=list)
    """Verdicts on the paper's claims, in the order of `reports.claims.CLAIMS`; none where it could not decide them."""
    experiment: str = ""

    @property
    def key(self) -> str:
        """What it is called in the report, where a figure may have several sections."""
        return f"{self.name}-{self.experiment}" if self.experiment else self.name

    def of_experiment(self, experiment: str, *, is_first: bool) -> Section:
        """Returns it as that of one experiment; question and method stand in the first one."""
        question, method = (self.question, self.method) if is_first else ("", "")
        title = f"{self.title}: {experiment}"
        return replace(self, title=title, question=question, method=method, experiment=experiment)

    @property
    def is_published(self) -> bool:
        """Whether its table sets the paper's values beside ours."""
        return any(title.startswith("Published") for title in (self.published or [[]])[0])

    @classmethod
    def empty(cls, figure: Figure, reason: str) -> Section:
        """Returns the section of a figure that cannot be drawn."""
        return cls(figure.name, figure.entry.title, figure.question, figure.method, [], reason, None)

    @classmethod
    def broken(cls, name: str, title: str, error: BrokenFigureError) -> Section:
        """Returns the section of a figure that fails."""
        return cls(name, title, "", "", [], f"This figure could not be made. {error}", None)
