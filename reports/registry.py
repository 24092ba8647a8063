"""The figures by name.  Entries name their module, which is imported only when the figure is drawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FigureEntry:
    """One figure: `module` has `QUESTION`, `METHOD`, `estimate`, `draw`, `caption`, `findings` and
    `published_rows`."""

    description: str
    title: str
    module: str


FIGURES: dict[str, FigureEntry] = {
    "distribution": FigureEntry(
        "final test loss over random initial hyperparameters (paper, figure 1)",
        "Final test loss over random initial hyperparameters",
        "reports.figures.distribution",
    ),
    "performance": FigureEntry(
        "trials and counted time a search needs to reach Global OHO (paper, figure 2)",
        "Trials and counted time to reach Global OHO",
        "reports.figures.performance",
    ),
    "anytime": FigureEntry(
        "test loss of the selected model against the budget used, all methods",
        "What each method returns at any budget",
        "reports.figures.anytime",
    ),
}
