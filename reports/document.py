"""Tables and figures -> the PDF, through typst.  The same records give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typst

from bench.records import ReportError
from bench.records.files import write_output
from reports import published
from reports.better import COMPARED_IN, asked, comparison
from reports.clocks import mixed_experiments
from reports.final_values import final_values, in_words
from reports.front import HEADER, counted, decided_claims, not_asked, tables_of
from reports.plain_text import plain_text
from reports.section import Section
from reports.selection import MEASURED, ONLINE, void
from reports.speeds import relative, speeds, unequal_speeds
from reports.statistics import Estimate, interquartile_mean, median_of
from reports.tables import Tables
from reports.went_wrong import absent, problems
from reports.words import breakable, budgets, listed, loss_text, order_of, plural, task_names, within

TEXT = ".txt"
"""The suffix of the plain text beside the PDF."""
TEMPLATE = Path(__file__).with_name("template.typ")
ACCOUNTS = ("train", "hypergradient", "selection", "search", "setup", "evaluation", "tracking")
"""Accounts that the table of time names; it sums up the others."""
UNBROKEN = ("provenance", "image", "source", "name", "figure")
DISTURBED = "†"
"""The mark of seconds of which some are void."""


def opening(tables: Tables, sections: list[Section]) -> dict[str, Any]:
    """Returns what PDF and page both begin with: title, date, the abstract's sentences, how many runs were measured."""
    runs = tables.runs.drop_duplicates("run")
    done = runs[runs["status"].isin(MEASURED)]
    claims = decided_claims(sections)
    return {
        "title": "Hyperparameter optimization during training under equal budgets",
        "date": _newest(tables)[:10],
        "abstract": [
            *void(tables.runs), *mixed_experiments(tables.runs), _compared(done), *_batches(done),
            *filter(None, [unequal_speeds(done)]), counted(claims),
        ],
        "planned": f"{len(runs):,}",
        "measured": f"{len(done):,}",
        "standings": [table._asdict() for table in tables_of(tables)],
        "claims": [claim._asdict() for claim in claims if claim.is_asked],
        "not_asked": not_asked(claims),
    }


def _newest(tables: Tables) -> str:
    return max(outcome.finished for outcome in tables.outcomes.values())


def write_pdf(tables: Tables, sections: list[Section], output: Path) -> None:
    """Writes the report as a PDF and, beside it, as plain text.  Raises `ReportError` where a file cannot be written."""
    content = content_of(tables, sections)
    try:
        pdf = _compiled(content, tables, sections)
    except typst.TypstError as error:
        raise ReportError(f"{output}: cannot be set ({' '.join(error.message.split())})") from None
    write_output(output, pdf)
    write_output(output.with_suffix(TEXT), plain_text(content).encode())


def compiled(tables: Tables, sections: list[Section], **options: Any) -> Any:
    """Returns what typst makes of the report: a PDF or, with the options of `typst.compile`, the images of its pages."""
    return _compiled(content_of(tables, sections), tables, sections, **options)


def _compiled(content: dict[str, Any], tables: Tables, sections: list[Section], **options: Any) -> Any:
    inputs = {_image(index): section.image for index, section in enumerate(sections) if section.image is not None}
    folders: list[Any] = sorted({str(Path(file).parent) for file in tables.names.fonts.files})
    return typst.compile(
        TEMPLATE.read_bytes(), sys_inputs={"content": json.dumps(_with_breaks(content)), **inputs},
        ignore_system_fonts=True, font_paths=folders, timestamp=int(datetime.fromisoformat(_newest(tables)).timestamp()),
        **options,
    )  # fmt: skip


def content_of(tables: Tables, sections: list[Section]) -> dict[str, Any]:
    """Returns what the PDF says, as texts and tables of texts."""
    runs = tables.runs
    done = runs[runs["status"].isin(MEASURED)]
    spared = done[done["shock"] == ""]  # those with a shock are compared with their twins, in their own section
    return {
        **opening(tables, sections),
        "standing_header": HEADER,
        "sections": [_section(index, section) for index, section in enumerate(sections)],
        "results": [_group_table(experiment, group) for experiment, group in spared.groupby("experiment", sort=True)],
        "ends": [*_ends(tables, spared)],
        "comparisons": [comparison(name, group) for name, group in asked(tables, spared)],
        "ledger": _ledger(spared),
        "ledger_marked": _marked(spared),
        "provenance": _provenance(tables),
        "source": published.SOURCE,
        "problems": problems(runs),
        "absent": absent(tables),
        "names": tables.names.listed(),
        "has_code_points": bool(tables.names.fonts.missing),
    }


def _with_breaks(content: Any) -> Any:
    """Returns the content with its long words breakable, except for hashes and versions, which readers copy."""
    if isinstance(content, str):
        return breakable(content)
    if isinstance(content, list):
        return [_with_breaks(item) for item in content]
    if isinstance(content, dict):
        return {key: item if key in UNBROKEN else _with_breaks(item) for key, item in content.items()}
    return content


def _compared(runs: pd.DataFrame) -> str:
    parts = []
    for task, group in runs.groupby("task"):
        methods = plural(group["method_label"].nunique(), "method")
        parts.append(f"{plural(len(group), 'run')} of {methods} on {task}, {budgets(group)} each")
    return f"This report compares {'; '.join(parts)}. A search's budget covers all its trials."


def _batches(runs: pd.DataFrame) -> list[str]:
    """Says how many examples a step reads, and how many more that of a method that follows the validation loss."""
    tasks: dict[str, list[str]] = {}
    for task, group in runs.groupby("task"):
        sizes = sorted({options["batch_size"] for options in group["task_options"] if "batch_size" in options})
        ahead = sorted({size for row in group.itertuples() if (size := _read_ahead(row)) is not None})
        more = f" and, where it is OHO's, {' or '.join(map(str, ahead))} validation examples more" if ahead else ""
        if sizes:
            tasks.setdefault(f"{' or '.join(map(str, sizes))} examples{more}", []).append(str(task))
    parts = [what if len(tasks) == 1 else f"{what} on {listed(names)}" for what, names in tasks.items()]
    return [f"A step reads a batch of {'; of '.join(parts)}."] if parts else []


def _read_ahead(run: Any) -> int | None:
    """Returns the size of the validation batch that each step of a run reads; None where it reads none."""
    if run.family != ONLINE or run.options.get("source", "validation") != "validation":
        return None
    return run.options.get("validation_batch_size") or run.task_options.get("validation_batch_size")


def _image(index: int) -> str:
    """Returns the name by which the template finds a section's image."""
    return f"figure-{index}"


def _section(index: int, section: Section) -> dict[str, Any]:
    image = _image(index) if section.image is not None else None
    return {
        "title": section.title, "question": section.question, "method": section.method,
        "findings": section.findings, "caption": section.caption, "image": image, "published": section.published,
        "is_published": section.is_published, "name": section.key, "words": _columns_of_words(section.published),
    }  # fmt: skip


def _columns_of_words(rows: list[list[str]]) -> int:
    """Returns how many of a table's first columns hold names, which stand at the left: one, and more without digits."""
    columns = list(zip(*rows[1:], strict=True))
    numbers = (place for place, cells in enumerate(columns) if place and any(cell[:1].isdigit() for cell in cells))
    return next(numbers, 1)


def _group_table(experiment: str, group: pd.DataFrame) -> dict[str, Any]:
    units = group["units"].iloc[0]
    is_fraction = units.metric_unit == "fraction"
    group = group.assign(speed=speeds(group))
    has_speeds = bool(group["speed"].notna().any())
    rows = []
    for label, runs in sorted(group.groupby("label"), key=lambda item: order_of(item[1])):
        estimate = median_of(runs["incumbent_test_loss"])
        finite = runs["incumbent_test_loss"].dropna().to_numpy()
        rows.append([
            str(label), str(len(runs)), loss_text(estimate.value),
            _interval(estimate, len(runs)),
            loss_text(float(interquartile_mean(finite))) if len(finite) else "—",
            _metric(units.shown(runs["incumbent_test_error"].median()), units.metric_unit) if len(finite) else "—",
            _seconds(runs), *([relative(runs)] if has_speeds else []), f"{runs['steps'].median():,.0f}",
            str(int((runs["status"] == "diverged").sum())),
        ])  # fmt: skip
    errors = "" if is_fraction else f", errors in {units.metric_unit}"
    metric = (units.metric_title if is_fraction else units.metric).capitalize()
    return {
        "experiment": experiment, "task": task_names(group), "rows": rows,
        "header": ["Method", "Runs", "Median", "Interval", "IQM", metric, "Seconds", *(["Machine"] if has_speeds else []),
                   "Updates", "Diverged"],
        "losses": f"Losses are {units.loss} in {units.loss_unit}{errors}.",
        "untrained": _untrained(group), "marked": _marked(group),
    }  # fmt: skip


def _ends(tables: Tables, runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yields the table of final values of each experiment that compares methods."""
    comparing = {manifest.experiment for manifest in tables.manifests if set(manifest.figures) & COMPARED_IN}
    for experiment, group in runs.groupby("experiment", sort=True):
        if experiment in comparing and len(values := final_values(tables, group)):
            yield {"experiment": experiment, "rows": [in_words(row) for row in values.to_dict("records")]}


def _interval(estimate: Estimate, count: int) -> str:
    """Returns a median's interval, or the range of few runs."""
    if not np.isfinite(estimate.low):
        return "—"
    return within(loss_text(estimate.low), loss_text(estimate.high), count)


def _seconds(runs: pd.DataFrame) -> str:
    """Returns the median of counted seconds, of runs that did not share theirs with others."""
    median = runs["counted_seconds"].median()
    return "shared" if np.isnan(median) else f"{median:.3g}{_mark(runs)}"


def _mark(runs: pd.DataFrame) -> str:
    """Returns what stands beside the seconds of runs some of which had their clock disturbed."""
    return f" {DISTURBED}" if (runs["disturbed_because"] != "").any() else ""


def _marked(runs: pd.DataFrame) -> str:
    """Returns what the mark means; empty where it is not used."""
    return f"{DISTURBED}: the clock of a run or more was disturbed (last page)." if _mark(runs) else ""


def _metric(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == "fraction" else f"{value:.3g}"


def _untrained(group: pd.DataFrame) -> str:
    """Says which methods return the untrained model in any of their runs; empty where none does."""
    parts = [
        f"{label} ({(runs['selected_step'] == 0).sum()} of {len(runs)})"
        for label, runs in sorted(group.groupby("label"), key=lambda item: order_of(item[1]))
        if (runs["selected_step"] == 0).any()
    ]
    return f"Runs that return the untrained model: {listed(parts)}." if parts else ""


def _ledger(done: pd.DataFrame) -> list[list[str]]:
    rows = []
    groups = done[done["shared_by"] <= 1].groupby(["experiment", "label"])
    for (experiment, label), group in sorted(groups, key=lambda item: (item[0][0], order_of(item[1]))):
        seconds = [group[f"seconds_{account}"].mean() for account in ACCOUNTS]
        several = done.loc[done["label"] == label, "experiment"].nunique() > 1
        name = f"{label}, {experiment}" if several else str(label)
        wall = group["wall_seconds"].mean()
        rows.append([name + _mark(group), *(f"{value:.2f}" for value in (*seconds, wall - sum(seconds), wall))])
    return rows


def _said(value: Any) -> str:
    """Returns a value of an environment in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_said(each)}" for name, each in value.items())
    return str(value)


def _provenance(tables: Tables) -> list[list[str]]:
    rows = [["protocol version", str(tables.protocol)]]
    keys = dict.fromkeys(key for environment in tables.environments for key in environment if key != "finished")
    for key in keys:
        values = sorted({_said(environment[key]) for environment in tables.environments if key in environment})
        rows.append([key.replace("_", " "), ", ".join(values)])
    finished = sorted(outcome.finished for outcome in tables.outcomes.values())
    return [*rows, ["runs ended", f"{finished[0]} to {finished[-1]}"]]
