"""Dashboards -> one HTML page that needs no network: what a user of W&B would see, drawn from our own tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from bench.records.files import write_output
from reports.dashboard.drawing import drawn
from reports.dashboard.panels import Dashboard, Group, Panel, Text
from reports.page import CHARTS, chart_content, embedded

SKELETON = Path(__file__).with_name("preview.html")
NOTE = (
    "This page shows the sections and panels that “oho-bench dashboard --publish” writes as workspaces, drawn from the "
    "records. Lines are medians over a group's runs and bands their range. In Weights & Biases the same panels are live: "
    "they follow filters, and runs that are added."
)


def write_preview(dashboards: Sequence[Dashboard], output: Path) -> None:
    """Writes the page.  The same records give the same bytes.  Raises `ReportError` where the file cannot be written."""
    charts: dict[str, Any] = {}
    content = "\n".join(_dashboard(dashboard, charts) for dashboard in dashboards)
    page = Template(SKELETON.read_text(encoding="utf-8")).substitute(
        title="Preview of the W&amp;B workspaces", note=escape(NOTE), content=content, data=embedded(charts),
        plotly=get_plotlyjs(), script=CHARTS.read_text(encoding="utf-8"),
    )  # fmt: skip
    write_output(output, page.encode())


def _dashboard(dashboard: Dashboard, charts: dict[str, Any]) -> str:
    parts = [f"<h2>{escape(dashboard.title)}</h2>", f'<p class="note">{escape(dashboard.setting)}</p>']
    parts.append(f'<p class="groups">{" ".join(map(_group, dashboard.groups))}</p>')
    for section in dashboard.sections:
        panels = "\n".join(_panel(panel, dashboard, charts) for panel in section.panels)
        name = escape(section.name)
        parts.append(f'<details open><summary>{name}</summary>\n<div class="panels">\n{panels}\n</div></details>')
    return "\n".join(parts)


def _group(group: Group) -> str:
    return f'<span><i style="background:{group.colour}"></i>{escape(group.label)}</span>'


def _panel(panel: Panel, dashboard: Dashboard, charts: dict[str, Any]) -> str:
    if isinstance(panel, Text):
        return f'<div class="panel">{_text(panel)}</div>'
    name = f"chart-{len(charts)}"
    charts[name] = chart_content(drawn(panel, dashboard))
    return f'<div class="panel"><div data-chart="{name}"></div></div>'


def _text(panel: Text) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in panel.table.header)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in panel.table.rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<h3>{escape(panel.title)}</h3>\n<p>{escape(panel.sentence)}</p>\n{table}"
