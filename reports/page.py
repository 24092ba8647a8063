"""Tables, figures and records -> one HTML page that needs no network.  The same records give the same bytes."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bench.records.durations import unit_name
from bench.records.files import write_output
from bench.records.names import file_name
from reports.document import opening
from reports.front import HEADER
from reports.published import SOURCE
from reports.section import Section
from reports.selection import MEASURED
from reports.tables import Tables
from reports.units import Units
from reports.words import hyperparameter

SKELETON, SCRIPT, CHARTS = (Path(__file__).with_name(name) for name in ("page.html", "page.js", "charts.js"))
DIGITS = 4
LOG_ROWS = 200
"""How many evaluations of a run are shown at most, evenly spaced."""

COLUMNS = {
    "experiment": "Experiment", "task": "Task", "label": "Method", "seed": "Seed", "status": "Status", "budget": "Budget",
    "incumbent_test_loss": "Test loss", "incumbent_validation_loss": "Validation loss",
    "incumbent_test_error": "Test metric", "counted_seconds": "Counted seconds", "steps": "Steps", "trials": "Trials",
    "run": "Run",
}  # fmt: skip
"""The columns of the table of runs; losses and metric are those of the selected model, the identity comes last."""
METRIC = "incumbent_test_error"
LOSSES = ("incumbent_test_loss", "incumbent_validation_loss")
MEASURES = frozenset({*LOSSES, METRIC, "counted_seconds"})
COUNTS = frozenset({"seed", "budget", "steps", "trials"})

FILES = ("spec.json", "records.jsonl", "outcome.json")
"""What the results folder keeps of a run."""
CLAIM_HEADER = ("Claim of the paper", "Reproduced if", "Verdict", "Evidence", "Figure")
CLAIM_NOTE = (
    "Each is decided by the rule beside it: a claim is not reproduced if the rule does not hold, and not tested where the "
    "runs cannot tell. Intervals are of 95 %, over seeds; below six runs there is none."
)
UNQUOTED = " <>/=:;,!?()[]{}*+-_.~@$|'"
"""What an address of data may hold as it is, within quotation marks."""

HINT = (
    '<p class="note">A click on a name hides it, a double click shows it alone; drawing a rectangle magnifies it, a double '
    "click in the chart shows all.</p>"
)
LOG = {
    "used": "used ({unit})", "counted_seconds": "counted seconds", "step": "step", "epoch": "epoch", "trial": "trial",
    "train_loss": "training loss", "validation_loss": "validation loss", "test_loss": "test loss",
    "test_error": "test {metric}", "incumbent_validation_loss": "validation loss, selected model",
    "incumbent_test_loss": "test loss, selected model",
}  # fmt: skip
"""The columns of a run's log that stand before its hyperparameters."""


@dataclass(frozen=True)
class Chart:
    """A figure's interactive form, as JSON; `content` is None where the section's caption says why there is none."""

    name: str
    section: Section
    content: Mapping[str, Any] | None


def write_page(
    output: Path, *, tables: Tables, sections: list[Section], charts: list[Chart], results: Path
) -> None:  # fmt: skip
    """Writes the page, with links to what the folder of the results keeps of each run.  Raises `ReportError` where the
    file cannot be written."""
    drawn = {chart.name: chart.content for chart in charts if chart.content is not None}
    data = {
        "digits": DIGITS, "columns": columns(tables.runs), "rows": rows(tables.names.restored(tables.runs)),
        "runs": details(tables), "charts": drawn, "records": _address(results, output.parent), "files": FILES,
    }  # fmt: skip
    start = opening(tables, sections)
    pdf = output.with_suffix(".pdf").name
    page = Template(SKELETON.read_text(encoding="utf-8")).substitute(
        title=escape(start["title"]), date=escape(start["date"]), pdf=escape(pdf), pdf_address=escape(quote(pdf)),
        abstract=escape(" ".join(start["abstract"])), measured=start["measured"], planned=start["planned"],
        losses=escape(_losses(tables.runs)),
        front="\n".join(front_elements(start)), contents="\n".join(_entry(section) for section in sections),
        figures="\n".join(_element(section, section.name in drawn) for section in sections), data=embedded(data),
        plotly=compressed(get_plotlyjs()) if drawn else "",
        script="".join(path.read_text(encoding="utf-8") for path in (CHARTS, SCRIPT)),
    )  # fmt: skip
    write_output(output, page.encode())


def rows(runs: pd.DataFrame) -> list[list[Any]]:
    """Returns a row for each planned run, in the order of `COLUMNS`; None is what is not known.

    A budget is a pair, what to sort by and what to show, and so are the seconds of a disturbed clock, and losses and metric
    where runs differ in their units.
    """
    is_one = _one_unit(runs) is not None
    return [[_cell(name, row, is_one) for name in COLUMNS] for row in runs.to_dict("records")]


def _cell(name: str, row: Mapping[str, Any], is_one_unit: bool) -> Any:
    value = row[name]
    if pd.isna(value):
        return None
    if name == "status":
        return _status(row)
    if name == "budget":
        return [rounded(value), f"{value:g} {unit_name(row['unit'])}"]
    if name in COUNTS:
        return int(value)
    if name not in MEASURES:
        return value
    units: Units = row["units"]
    shown = rounded(units.shown(value) if name == METRIC else float(value))
    if name == "counted_seconds" and row["disturbed_because"] != "":
        return [shown, f"{shown:g} (disturbed)"]
    if is_one_unit or name not in (METRIC, *LOSSES) or shown is None:
        return shown
    return [shown, f"{shown:g} {units.metric_title if name == METRIC else units.loss_unit}"]


def _status(row: Mapping[str, Any]) -> str:
    """Returns a run's status, with what a reader of its losses has to know."""
    notes = []
    if row["status"] in MEASURED:
        notes += ["clock disturbed"] if row["disturbed_because"] != "" else []
        notes += ["seconds shared"] if row["shared_by"] > 1 else []
        notes += ["changed when resumed"] if row["resumed_with"] != "" else []
        notes += ["untrained model"] if row["selected_step"] == 0 else []
    return row["status"].replace("_", " ") + "".join(f" ({note})" for note in notes)


def columns(runs: pd.DataFrame) -> list[dict[str, str]]:
    """Returns name, title and kind of each column; the metric's title is its own, where all runs have one."""
    kinds = {**dict.fromkeys(COUNTS, "count"), **dict.fromkeys(MEASURES, "measure")}
    units = _one_unit(runs)
    titles = COLUMNS | ({METRIC: f"Test {units.metric_title}"} if units else {})
    return [{"name": name, "title": title, "kind": kinds.get(name, "text")} for name, title in titles.items()]


def _one_unit(runs: pd.DataFrame) -> Units | None:
    """Returns what all runs measure; None where they differ."""
    found = set(runs.loc[runs["status"] != "missing", "units"])
    return found.pop() if len(found) == 1 else None


def _losses(runs: pd.DataFrame) -> str:
    """Returns what losses and metric are, for the sentence above the table."""
    units = _one_unit(runs)
    return f"Losses ({units.loss} in {units.loss_unit}) and {units.metric}" if units else "Losses and metrics"


def details(tables: Tables) -> dict[str, Any]:
    """Returns what opens below a row, by run; a run that was not started has nothing."""
    evaluations = _Evaluations(tables.evaluations)
    units = dict(zip(tables.runs["run"], tables.runs["units"], strict=True))
    return {
        identity: _detail(identity, tables, evaluations.of(identity), units[identity]) for identity in sorted(tables.specs)
    }


def _detail(identity: str, tables: Tables, evaluations: Mapping[str, list[Any]], units: Units) -> dict[str, Any]:
    outcome, spec = tables.outcomes.get(identity), tables.specs[identity]
    ended = {} if outcome is None else {
        "message": outcome.message.strip(), "disturbed": list(outcome.disturbed_because), "changes": outcome.changes,
        "accounts": rounded(outcome.accounts) if outcome.shared_by == 1 else {},
        "wall_seconds": rounded(outcome.wall_seconds),
    }  # fmt: skip
    count = len(evaluations.get("step", ()))
    return {"spec": spec, "evaluations": count, "log": log(evaluations, spec["budget"]["unit"], units), **ended}


class _Evaluations:
    """The table of evaluations as lists, of which each run has a part: slicing tables takes many times as long."""

    def __init__(self, table: pd.DataFrame):
        self._values = {str(name): table[name].tolist() for name in table}
        starts = table["run"].ne(table["run"].shift()).to_numpy().nonzero()[0].tolist()
        bounds = itertools.pairwise([*starts, len(table)])
        self._parts = {table["run"].iat[start]: slice(start, end) for start, end in bounds}

    def of(self, run: str) -> dict[str, list[Any]]:
        """Returns a run's columns; none where it has no evaluations."""
        part = self._parts.get(run)
        return {} if part is None else {name: values[part] for name, values in self._values.items()}


def log(evaluations: Mapping[str, list[Any]], unit: str, units: Units) -> dict[str, list[Any]]:
    """Returns a run's evaluations, a column a title; columns that say nothing are left out."""
    kept = _thinned(len(evaluations.get("step", ())))
    found = {name: [values[index] for index in kept] for name, values in evaluations.items()}
    shown = {name: found[name] for name in LOG if name in found}
    if shown.get("counted_seconds") == shown.get("used"):
        shown.pop("counted_seconds", None)
    if not any(shown.get("trial", ())):
        shown.pop("trial", None)
    if "test_error" in shown:
        shown["test_error"] = [None if value is None else units.shown(value) for value in shown["test_error"]]
    titled = {LOG[name].format(unit=unit_name(unit), metric=units.metric_title): values for name, values in shown.items()}
    for name, values in found.items():
        if name.startswith("hyper_"):
            titled[hyperparameter(name.removeprefix("hyper_"))] = [_setting(value) for value in values]
    known = {title: rounded(values) for title, values in titled.items()}
    return {title: values for title, values in known.items() if any(value is not None for value in values)}


def _thinned(count: int) -> list[int]:
    """Returns which of so many evaluations are shown."""
    if count <= LOG_ROWS:
        return list(range(count))
    return np.linspace(0, count - 1, LOG_ROWS).round().astype(int).tolist()


def _setting(value: Any) -> Any:
    """Returns a hyperparameter that has one value; of several, between which values they lie."""
    if not isinstance(value, list):
        return value
    known = [number for number in value if not math.isnan(number)]
    return f"{min(known):.{DIGITS}g} to {max(known):.{DIGITS}g} ({len(value)} sets)" if known else None


def rounded(value: Any) -> Any:
    """Returns `value` with every float in it to 4 significant digits; None for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def embedded(content: Any) -> str:
    """Returns JSON that may stand inside a script element: no text in it can end that."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def chart_content(figure: go.Figure) -> dict[str, Any]:
    """Returns a chart without a template: all charts take the page's."""
    content = json.loads(figure.to_json())
    content["layout"].pop("template", None)
    return {"data": rounded(content["data"]), "layout": content["layout"]}


def compressed(text: str) -> str:
    """Returns a text as gzip in base64, a third of its size, which the page's script unpacks."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _address(folder: Path, page: Path) -> str:
    """Returns the address of a folder as the page has to write it."""
    return quote(Path(os.path.relpath(folder.resolve(), page.resolve())).as_posix())


def front_elements(start: Mapping[str, Any]) -> list[str]:
    """Returns the tables that the page begins with: who is best, and what becomes of the paper's claims."""
    titles = {table["title"]: _table(HEADER, table["rows"], f"{table['title']}: which method is best at which budget. "
                                     f"{table['notes']}") for table in start["standings"]}  # fmt: skip
    rows = [
        [each["claim"], each["rule"], each["outcome"], each["evidence"], _link(each["figure"])] for each in start["claims"]
    ]
    claims = _table(CLAIM_HEADER, rows, "What becomes of the paper's claims. " + CLAIM_NOTE)
    return [*titles.values(), claims]


def _table(header: Sequence[str], rows: Sequence[Sequence[str | Link]], caption: str) -> str:
    """Returns a table that scrolls by itself where the window is narrow."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{_html(cell)}</td>' for cell in row)}</tr>" for row in rows)
    label = escape(caption.split(".")[0])
    return (
        f'<figure><figcaption>{escape(caption)}</figcaption>\n<div class="scroll" role="region" aria-label="{label}" '
        f'tabindex="0"><table class="plain" aria-label="{label}">\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>'
        "</table></div></figure>"
    )


class Link(NamedTuple):
    """A cell of a table that leads to a figure's section."""

    figure: str


def _link(figure: str) -> Link | str:
    return Link(figure) if figure else "—"


def _html(cell: str | Link) -> str:
    return f'<a href="#{_place(cell.figure)}">{escape(cell.figure)}</a>' if isinstance(cell, Link) else escape(cell)


def _place(name: str) -> str:
    """Returns the id of a section's element."""
    return escape(f"section-{file_name(name)}")


def _entry(section: Section) -> str:
    return f'<li><a href="#{_place(section.name)}">{escape(section.title)}</a></li>'


def _element(section: Section, is_chart: bool) -> str:
    """Returns a section's element: its sentences and its figure, as a chart where there is one."""
    place, texts = _place(section.name), []
    for title, text in (("How measured", section.method), ("What we see", " ".join(section.findings))):
        texts += [f"<p><strong>{title}.</strong> {escape(text)}</p>"] if text else []
    table = ""
    if section.published:
        caption = f"Ours beside the published values ({SOURCE})." if section.is_published else "The numbers of this figure."
        table = _table(section.published[0], section.published[1:], caption)
        if not section.is_published:
            table = f"<details><summary>Numbers</summary>{table}</details>"
    body = [f'<h2 id="{place}-title">{escape(section.title)}</h2>', f"<p>{escape(section.question)}</p>",
            _figure(section, is_chart), *texts, table]  # fmt: skip
    return f'<section id="{place}" aria-labelledby="{place}-title">\n' + "\n".join(filter(None, body)) + "\n</section>"


def _figure(section: Section, is_chart: bool) -> str:
    if section.image is None:
        return f'<p class="absent">{escape(section.caption)}</p>'
    caption = f"<figcaption>{escape(section.caption)}</figcaption>"
    if is_chart:
        name = escape(section.name)
        label = escape(f"Chart: {section.title}")
        return (
            f'<figure><div class="plot" id="chart-{escape(file_name(section.name))}" data-chart="{name}" role="group" '
            f'aria-label="{label}"></div>\n{caption}</figure>\n{HINT}'
        )
    drawing = quote(section.image[section.image.index("<svg") :], safe=UNQUOTED)
    image = f'<img alt="{escape(section.title)}" src="data:image/svg+xml,{drawing}">'
    return f'<figure><div class="scroll">{image}</div>\n{caption}</figure>'
