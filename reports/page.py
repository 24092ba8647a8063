"""Tables, figures and records -> one HTML page that needs no network.  The same records give the same bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bench.records import ReportError, Run, read_run
from reports.common import MEASURED
from reports.document import Section, opening
from reports.tables import Tables

SKELETON, SCRIPT = (Path(__file__).with_name(f"page.{suffix}") for suffix in ("html", "js"))
DIGITS = 4
LOG_ROWS = 200
"""Of a run with more evaluations, as many are shown, evenly spaced."""

COLUMNS = {
    "experiment": "Experiment", "task": "Task", "label": "Method", "seed": "Seed", "status": "Status", "budget": "Budget",
    "incumbent_test_loss": "Test loss", "incumbent_validation_loss": "Validation loss",
    "incumbent_test_error": "Test error", "counted_seconds": "Counted seconds", "steps": "Steps", "trials": "Trials",
    "run": "Run",
}  # fmt: skip
"""Of the table of runs; losses and error are those of the selected model, the identity comes last."""
MEASURES = frozenset({
    "incumbent_test_loss", "incumbent_validation_loss", "incumbent_test_error", "counted_seconds",
})  # fmt: skip
COUNTS = frozenset({"seed", "budget", "steps", "trials"})

HINT = (
    '<p class="note">A click on a name hides it, a double click shows it alone; drawing a rectangle magnifies it, a double '
    "click in the chart shows all.</p>"
)
LOG = {
    "used": "used ({unit})", "counted_seconds": "counted seconds", "step": "step", "epoch": "epoch", "trial": "trial",
    "train_loss": "training loss", "validation_loss": "validation loss", "test_loss": "test loss",
    "test_error": "test error", "incumbent_validation_loss": "validation loss, selected model",
    "incumbent_test_loss": "test loss, selected model",
}  # fmt: skip
"""Of a run's log, before its hyperparameters."""
HYPER = {"lr": "learning rate"}


@dataclass(frozen=True)
class Chart:
    """A figure's interactive form; `figure` is None where the section's caption says why there is none."""

    name: str
    section: Section
    figure: go.Figure | None


def write_page(output: Path, results: Path, *, tables: Tables, sections: list[Section], charts: list[Chart]) -> None:
    """Writes the page.  Raises `ReportError` where the file cannot be written."""
    drawn = {chart.name: _chart(chart.figure) for chart in charts if chart.figure is not None}
    data = {
        "digits": DIGITS, "columns": _columns(), "rows": rows(tables.runs), "runs": details(tables.runs, results),
        "charts": drawn,
    }  # fmt: skip
    start = opening(tables, sections)
    pdf = output.with_suffix(".pdf").name
    page = Template(SKELETON.read_text(encoding="utf-8")).substitute(
        title=escape(start["title"]), date=escape(start["date"]), pdf=escape(pdf), pdf_address=escape(quote(pdf)),
        abstract=escape(" ".join(start["abstract"])), measured=start["measured"], planned=start["planned"],
        charts="\n".join(_chart_element(chart) for chart in charts), data=embedded(data),
        plotly=get_plotlyjs() if drawn else "", script=SCRIPT.read_text(encoding="utf-8"),
    )  # fmt: skip
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{output}: cannot be written ({error.strerror}); choose another place with -o") from None


def rows(runs: pd.DataFrame) -> list[list[Any]]:
    """A row for each planned run, in the order of `COLUMNS`; None is what is not known.

    A budget is a pair, what to sort by and what to show.
    """
    return [[_cell(name, row) for name in COLUMNS] for row in runs.to_dict("records")]


def _cell(name: str, row: Mapping[str, Any]) -> Any:
    value = row[name]
    if pd.isna(value):
        return None
    if name == "status":
        disturbed = value in MEASURED and row["invalid_because"] != ""
        return value.replace("_", " ") + (" (clock disturbed)" if disturbed else "")
    if name == "budget":
        return [rounded(value), f"{value:g} {row['unit']}"]
    return int(value) if name in COUNTS else rounded(float(value)) if name in MEASURES else value


def _columns() -> list[dict[str, str]]:
    kinds = {**dict.fromkeys(COUNTS, "count"), **dict.fromkeys(MEASURES, "measure")}
    return [{"name": name, "title": title, "kind": kinds.get(name, "text")} for name, title in COLUMNS.items()]


def details(runs: pd.DataFrame, results: Path) -> dict[str, Any]:
    """What opens below a row, by run; a run that was not started has none."""
    identities = sorted(set(runs["run"]))
    return {
        identity: _detail(read_run(results / identity))
        for identity in identities
        if (results / identity / "spec.json").exists()
    }


def _detail(run: Run) -> dict[str, Any]:
    outcome = run.outcome
    ended = {} if outcome is None else {
        "message": outcome.message.strip(), "disturbed": list(outcome.invalid_because),
        "accounts": rounded(outcome.accounts), "wall_seconds": rounded(outcome.wall_seconds),
    }  # fmt: skip
    return {"spec": run.spec, "evaluations": len(run.evaluations), "log": log(run), **ended}


def log(run: Run) -> dict[str, list[Any]]:
    """The run's evaluations, a column a title; columns that say nothing are left out."""
    records = _thinned(run.evaluations)
    columns = {name: [record.get(name) for record in records] for name in LOG}
    if columns["counted_seconds"] == columns["used"]:
        del columns["counted_seconds"]
    if not any(columns["trial"]):
        del columns["trial"]
    titled = {LOG[name].format(unit=run.spec["budget"]["unit"]): values for name, values in columns.items()}
    for name in dict.fromkeys(name for record in records for name in record.get("hyper", {})):
        title = HYPER.get(name, name.replace("_", " "))
        titled[title] = [_setting(record.get("hyper", {}).get(name)) for record in records]
    return {title: rounded(values) for title, values in titled.items() if any(value is not None for value in values)}


def _thinned(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if len(records) <= LOG_ROWS:
        return list(records)
    return [records[index] for index in np.linspace(0, len(records) - 1, LOG_ROWS).round().astype(int)]


def _setting(value: Any) -> Any:
    """A hyperparameter with one value, or between which values its sets lie."""
    if not isinstance(value, list):
        return value
    if len(value) == 1:
        return value[0]
    known = [number for number in value if number is not None]
    return f"{min(known):.{DIGITS}g} to {max(known):.{DIGITS}g} ({len(value)} sets)" if known else None


def rounded(value: Any) -> Any:
    """`value` with every float in it to 4 significant digits; None for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def embedded(content: Any) -> str:
    """JSON to stand inside a script element, which no text in it can end."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _chart(figure: go.Figure) -> dict[str, Any]:
    """Without a template: all charts take the page's."""
    content = json.loads(figure.to_json())
    content["layout"].pop("template", None)
    return {"data": rounded(content["data"]), "layout": content["layout"]}


def _chart_element(chart: Chart) -> str:
    section = chart.section
    heading = f"<h2>{escape(section.title)}</h2>\n<p>{escape(section.question)}</p>"
    if chart.figure is None:
        body = f'<p class="absent">{escape(section.caption)}</p>'
    else:
        plot = f'<div class="plot" id="chart-{chart.name}" data-chart="{chart.name}"></div>'
        body = f"<figure>{plot}\n<figcaption>{escape(section.caption)}</figcaption></figure>\n{HINT}"
    return f"<section>\n{heading}\n{body}\n</section>"
