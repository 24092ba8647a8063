"""The figures by name.  Entries name their module, which is imported only when the figure is drawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FigureEntry:
    """One figure: `module` has `QUESTION`, `METHOD`, `estimate`, `draw`, `caption`, `findings` and `published_rows`.

    `interactive`, if it is there, makes a chart of the page.  The abstract has the first finding of each `headline`.
    """

    description: str
    title: str
    module: str
    headline: bool = False


FIGURES: dict[str, FigureEntry] = {
    "distribution": FigureEntry(
        "final test loss over random initial hyperparameters (paper, figure 1)",
        "Final test loss over random initial hyperparameters",
        "reports.figures.distribution",
        headline=True,
    ),
    "performance": FigureEntry(
        "trials and counted time a search needs to reach Global OHO (paper, figure 2)",
        "Trials and counted time to reach Global OHO",
        "reports.figures.performance",
        headline=True,
    ),
    "convergence": FigureEntry(
        "learning rates from several starts, test loss at several meta-rates (paper, figure 3)",
        "Where learning rates go",
        "reports.figures.convergence",
    ),
    "sets": FigureEntry(
        "test loss and time against the number of sets, exact and collapsed (paper, figure 4)",
        "How many sets",
        "reports.figures.sets",
    ),
    "source": FigureEntry(
        "hypergradients of training and validation batches, validation batch size (paper, figure 6)",
        "Where hypergradients come from",
        "reports.figures.source",
    ),
    "resiliency": FigureEntry(
        "what shocks in the middle of training do, and how long it takes to recover (paper, figure 7)",
        "Recovering from shocks",
        "reports.figures.resiliency",
        headline=True,
    ),
    "tangents": FigureEntry(
        "norms of the influence and correlations of gradients over training (paper, figure 8)",
        "How long the influence is",
        "reports.figures.tangents",
    ),
    "stability": FigureEntry(
        "norms of the influence against learning rate and meta-rate (paper, figure 9)",
        "When the influence explodes",
        "reports.figures.stability",
    ),
    "reset": FigureEntry(
        "test loss against how often the influence is forgotten (paper, figure 10)",
        "What forgetting costs",
        "reports.figures.reset",
    ),
    "anytime": FigureEntry(
        "test loss of the selected model against the budget used, all methods",
        "What each method returns at any budget",
        "reports.figures.anytime",
        headline=True,
    ),
    "profiles": FigureEntry(
        "how often each method is within a factor of the best, over tasks and seeds",
        "How often each method is near the best",
        "reports.figures.profiles",
    ),
    "exactness": FigureEntry(
        "errors of published and exact hypergradients, and what they do to the loss",
        "What exactness is worth",
        "reports.figures.exactness",
        headline=True,
    ),
    "transplant": FigureEntry(
        "OHO's schedule on other seeds: kept, shuffled, averaged",
        "How much is schedule, how much is following the run",
        "reports.figures.transplant",
        headline=True,
    ),
}
