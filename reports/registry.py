"""The figures by name.  An entry names its module, which is imported only when the figure is drawn.

A figure of a user's own is a file with such an entry, named in an experiment as `figures: [./mine.py:FIGURE]`:

    from reports.registry import FigureEntry

    FIGURE = FigureEntry("what `oho-bench list` says", "The section's title", module=__name__)

    def estimate(tables): ...
    def draw(estimates): ...
"""

from __future__ import annotations

from dataclasses import dataclass

from reports import needs
from reports.needs import Need

OF_OHO = needs.option("meta_rate", "methods that tune themselves at a `meta_rate`")


@dataclass(frozen=True)
class FigureEntry:
    """One figure.  Its module has

        estimate(tables)            returns the numbers: a DataFrame, or anything with a DataFrame as `csv`; `tables.runs`
                                    are the runs of the experiments that feed the figure (`reports.tables.Tables`)
        draw(estimates)             returns the matplotlib figure; `reports.style.panels` makes its axes

    and may have

        QUESTION, METHOD            what the figure asks, and how that is measured: the first sentences of its section
        caption(estimates)          returns what stands below the figure
        findings(estimates)         returns sentences on what is seen
        published_rows(estimates)   returns header and rows of a table with the published values beside ours
        interactive(estimates)      returns a Plotly chart for the page, or None

    and one of ours `verdicts(estimates)`, which returns a verdict for each of the claims that `reports.claims` has of it.

    Where it cannot be drawn, `estimate` raises `reports.selection.NoData` with the sentence to print.
    """

    description: str
    title: str
    module: str
    in_seconds: bool = False
    """Whether it shows seconds, whatever the budget: it is then not drawn of unlike devices (`reports.clocks`)."""
    compares: bool = False
    """Whether methods are compared in it as they are, so that the first page says which was best in its experiments."""
    needs: Need | None = None
    """What an experiment must have so that any of its runs can be in it (`reports.needs`); without it, the experiment is
    refused before it is run."""


FIGURES: dict[str, FigureEntry] = {
    "distribution": FigureEntry(
        "final test loss over random initial hyperparameters (paper, figure 1)",
        "Final test loss over random initial hyperparameters",
        "reports.figures.distribution",
        compares=True,
    ),
    "performance": FigureEntry(
        "trials and counted time to be as good as Global OHO and textbook training (paper, figure 2)",
        "Trials and counted time to reach a target",
        "reports.figures.performance",
        in_seconds=True,
        compares=True,
    ),
    "convergence": FigureEntry(
        "learning rates from several starts, test loss at several meta-rates (paper, figure 3)",
        "Where learning rates go",
        "reports.figures.convergence",
        needs=OF_OHO,
    ),
    "sets": FigureEntry(
        "test loss and time against the number of sets, exact and collapsed (paper, figure 4)",
        "How many sets",
        "reports.figures.sets",
        in_seconds=True,
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
        needs=needs.shocks,
        compares=True,
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
        needs=OF_OHO,
    ),
    "reset": FigureEntry(
        "test loss against how often the influence is forgotten (paper, figure 10)",
        "What forgetting costs",
        "reports.figures.reset",
        needs=needs.option("reset_every", "methods that may forget their influence (`reset_every`)"),
    ),
    "anytime": FigureEntry(
        "test loss of the selected model against the budget used, all methods",
        "What each method returns at any budget",
        "reports.figures.anytime",
        compares=True,
    ),
    "profiles": FigureEntry(
        "how often each method is within a factor of the best, over tasks and seeds",
        "How often each method is near the best",
        "reports.figures.profiles",
        compares=True,
    ),
    "summary": FigureEntry(
        "loss, rank and time to a target of each method, over all tasks with budgets of time",
        "All tasks together",
        "reports.figures.summary",
        compares=True,
    ),
    "sensitivity": FigureEntry(
        "test loss against the initial learning rate, over many decades, all methods",
        "How much the first learning rate matters",
        "reports.figures.sensitivity",
    ),
    "drift": FigureEntry(
        "test loss over time in a world whose inputs turn and whose labels shift",
        "Following a world that changes",
        "reports.figures.drift",
        needs=needs.changing_world,
    ),
    "many": FigureEntry(
        "loss at a fixed budget, and time to a target, against the number of hyperparameters tuned",
        "What tuning many hyperparameters costs",
        "reports.figures.many",
        in_seconds=True,
    ),
    "exactness": FigureEntry(
        "errors of published and exact hypergradients, and what they do to the loss",
        "What exactness is worth",
        "reports.figures.exactness",
        needs=needs.option("compare_exact", "methods that are compared with exact ones (`compare_exact: true`)"),
    ),
    "transplant": FigureEntry(
        "OHO's schedule on other seeds: kept, shuffled, averaged",
        "How much is schedule, how much is following the run",
        "reports.figures.transplant",
    ),
}
