"""Dashboards -> the views that W&B stores, through its package wandb-workspaces.  Nothing here uses the network.

The package draws an id for every panel; ours are hashes of where the panel stands, so that the same records give the same
views, and a view that is published again replaces itself.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import wandb_workspaces.expr as expr
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from bench.records import wandb_names as names
from reports.dashboard.panels import Bars, Dashboard, Group, Lines, Panel, Points, Section, Text
from reports.dashboard.tracked_names import config_of, metric_of
from reports.registry import FIGURES

PACKAGE = "wandb-workspaces"
REPORT_TITLE = "Hyperparameter optimization during training under equal budgets"
SYMBOLS = ("So", "Sk", "Sm", "Sc", "Cs")
"""Unicode's categories of symbols, which W&B takes in no view's name."""
LONGEST_TITLE = 128
MOST_RUNS = 100
"""How many runs a panel shows at most, where W&B would show ten."""
COLUMNS = ("run:displayName", f"summary:{names.SELECTED_TEST_LOSS}", f"summary:{names.STATUS}", "config:seed.value")
WIDTH, HEIGHT = 12, 8
"""A panel's in a report, whose rows have 24 columns."""


def views(dashboards: Sequence[Dashboard], *, entity: str, project: str) -> dict[str, Any]:
    """Returns all that `--publish` sends, as JSON has it."""
    made = report(dashboards, entity=entity, project=project)._to_model()
    made.name = _identity(REPORT_TITLE)
    return {
        "package": f"{PACKAGE} {version(PACKAGE)}",
        "workspaces": [
            _dumped(workspace(dashboard, entity=entity, project=project)._to_model()) for dashboard in dashboards
        ],
        "report": _dumped(made),
    }


def _dumped(model: Any) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def workspace(dashboard: Dashboard, *, entity: str, project: str) -> ws.Workspace:
    """Returns the workspace of a dashboard."""
    place = dashboard.title
    made = ws.Workspace(
        entity=entity,
        project=project,
        name=plain(dashboard.title),
        sections=[_section(section, f"{place}/{section.name}") for section in dashboard.sections],
        settings=ws.WorkspaceSettings(x_axis=_axis(dashboard), max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=_filters(dashboard),
            groupby=[expr.Config("label")],
            order=[expr.Ordering(expr.Config("label"))],
            group_colors={group.label: group.colour for group in dashboard.groups},
            pinned_columns=list(COLUMNS),
        ),
    )
    made._internal_name = f"nw-{_identity(place, 11)}-v"
    made._internal_runset_id = _identity(f"{place} runs")
    return made


def _section(section: Section, place: str) -> ws.Section:
    panels = [_panel(panel, f"{place}/{panel.title}") for panel in section.panels]
    made = ws.Section(
        name=section.name, panels=panels, is_open=True,
        layout_settings=ws.SectionLayoutSettings(columns=min(3, len(panels)), rows=-(-len(panels) // 3)),
    )  # fmt: skip
    made._id = _identity(place)
    return made


def _panel(panel: Panel, place: str) -> Any:
    made = _made(panel)
    made._id = _identity(place)
    return made


def _made(panel: Panel) -> Any:
    label = wr.Config("label")
    if isinstance(panel, Lines):
        return wr.LinePlot(
            title=panel.title, x=metric_of(panel.x), y=[metric_of(quantity) for quantity in panel.y],
            title_x=panel.x.title, title_y=panel.y[0].title if len(panel.y) == 1 else "", log_y=panel.is_log,
            groupby=label, groupby_aggfunc="median", groupby_rangefunc="minmax", max_runs_to_show=MOST_RUNS,
        )  # fmt: skip
    if isinstance(panel, Bars):
        return wr.BarPlot(
            title=panel.title, metrics=[metric_of(quantity) for quantity in panel.x], title_x=panel.axis,
            groupby=label, groupby_aggfunc="median", groupby_rangefunc="minmax",
            max_runs_to_show=MOST_RUNS, max_bars_to_show=MOST_RUNS,
        )  # fmt: skip
    if isinstance(panel, Points):
        return wr.ScatterPlot(
            title=panel.title, x=wr.Config(config_of(panel.x)), y=wr.SummaryMetric(metric_of(panel.y)),
            log_x=True, log_y=True,
        )  # fmt: skip
    return wr.MarkdownPanel(markdown=markdown(panel))


def markdown(panel: Text) -> str:
    """Returns a text's title, sentence and table; labels and messages mean nothing to Markdown."""
    header, rows = panel.table
    lines = [header, ["---"] * len(header), *map(_escaped, rows)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"### {panel.title}\n\n{panel.sentence}\n\n{table}"


def _escaped(cells: Sequence[str]) -> list[str]:
    marks = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]<>|#~$!"})
    return [cell.translate(marks) for cell in cells]


def _filters(dashboard: Dashboard, family: str | None = None) -> str:
    """Returns which runs are shown; trials of searches are in the runs of the searches."""
    chosen = {"experiment": dashboard.experiment, "task": dashboard.task}
    chosen |= {"family": family} if family else {}
    terms = [f"Config({key!r}) = {_quoted(value)}" for key, value in chosen.items()]
    return " and ".join([*terms, f"Metric('JobType') != {names.TRIAL!r}"])


def _quoted(value: str) -> str:
    """Returns a literal without signs in which the package would see operators: it rewrites `=`, even within texts."""
    return "".join(f"\\u{ord(sign):04x}" if sign in "=<>!" else sign for sign in json.dumps(value))


def _axis(dashboard: Dashboard) -> str:
    return names.AXES[dashboard.runs["unit"].dropna().iloc[0]]


def report(dashboards: Sequence[Dashboard], *, entity: str, project: str) -> wr.Report:
    """Returns the report of all dashboards: what the PDF has, with live panels and a run set for each family."""
    blocks: list[Any] = [wr.TableOfContents()]
    for dashboard in dashboards:
        blocks += [wr.H1(text=plain(dashboard.title)), wr.P(text=dashboard.setting)]
        for section in dashboard.sections:
            blocks += _blocks(section, dashboard, f"report/{dashboard.title}/{section.name}")
    return wr.Report(
        entity=entity, project=project, title=REPORT_TITLE, width="fluid", blocks=blocks,
        description="Written by oho-bench dashboard; the PDF of oho-bench report has intervals, tests and provenance.",
    )  # fmt: skip


def _blocks(section: Section, dashboard: Dashboard, place: str) -> Iterator[Any]:
    yield wr.H2(text=section.name)
    if section.figure:
        yield wr.P(text=f"{FIGURES[section.figure].title}.")
    live = [panel for panel in section.panels if not isinstance(panel, Text)]
    for panel in section.panels:
        if isinstance(panel, Text):
            yield wr.MarkdownBlock(text=markdown(panel))
    if live:
        yield _grid(live, dashboard, place)


def _grid(panels: Sequence[Panel], dashboard: Dashboard, place: str) -> wr.PanelGrid:
    made = []
    for number, panel in enumerate(panels):
        made.append(_panel(panel, f"{place}/{panel.title}"))
        made[-1].layout = wr.Layout(x=WIDTH * (number % 2), y=HEIGHT * (number // 2), w=WIDTH, h=HEIGHT)
    runsets: list[wr.Runset] = []
    colours: dict[str | wr.RunsetGroup, str | dict] = {}
    for family, groups in dashboard.families().items():
        runsets.append(_runset(family, dashboard, f"{place}/{family}"))
        colours |= {_group_key(family, group): group.colour for group in groups}
    return wr.PanelGrid(runsets=runsets, panels=made, custom_run_colors=colours)


def _runset(family: str, dashboard: Dashboard, place: str) -> wr.Runset:
    made = wr.Runset(
        name=family, filters=_filters(dashboard, family), groupby=["config.label"],
        order=[wr.OrderBy(wr.Config("label.value"), ascending=True)], pinned_columns=list(COLUMNS),
    )  # fmt: skip
    made._id = _identity(place)
    return made


def _group_key(family: str, group: Group) -> wr.RunsetGroup:
    return wr.RunsetGroup(runset_name=family, keys=(wr.RunsetGroupKey(wr.Config("label"), group.label),))


def plain(name: str) -> str:
    """Returns a view's name without symbols."""
    kept = "".join(sign for sign in name if unicodedata.category(sign) not in SYMBOLS)
    return " ".join(kept.split())[:LONGEST_TITLE]


def _identity(place: str, length: int = 12) -> str:
    return hashlib.sha256(place.encode()).hexdigest()[:length]
