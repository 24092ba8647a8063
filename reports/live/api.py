"""What the command line calls: a results folder that is being filled, as a page and as the data that the page asks for."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import orjson
import pandas as pd
from plotly.offline import get_plotlyjs

from bench.records.following import FollowedFolder, FollowedRun
from bench.records.run_columns import FINAL
from reports.dashboard.panels import Text
from reports.dashboard.summaries import recommendation, troubles
from reports.live.progress import HEADER, RUNNING_HEADER, progress, running
from reports.live.views import COLUMNS, View, Views
from reports.page import CHARTS

SKELETON, SCRIPT = (Path(__file__).with_name(name) for name in ("live.html", "live.js"))
SHARE, SPARE_SECONDS = 0.01, 2.0
"""The part of one core that is used at most, once the runs that were there at the beginning have been read; and how many
seconds of a core may be used in advance, as when charts appear."""
LEAST_SECONDS = 4.0
"""How often the folder is looked at, at most."""
LISTED = 20
"""How many damaged files are named."""


class Live:
    """A results folder that is followed while a page asks for it; nothing is read otherwise."""

    def __init__(self, root: Path):
        self._folder = FollowedFolder(root, COLUMNS)
        self._views = Views()
        self._lock = threading.Lock()
        self._start, self._count = secrets.token_hex(4), 0
        self._content, self._next = b"", 0.0
        self._spare, self._looked = SPARE_SECONDS, time.monotonic()
        self._texts: dict[str, tuple[tuple[Any, ...], dict[str, Any] | None]] = {}

    def page(self) -> bytes:
        """Returns the page, which needs nothing from elsewhere."""
        script = "".join(path.read_text(encoding="utf-8") for path in (CHARTS, SCRIPT))
        skeleton = Template(SKELETON.read_text(encoding="utf-8"))
        title = escape(str(self._folder.root))
        return skeleton.substitute(title=title, plotly=get_plotlyjs(), script=script).encode()

    def data(self, seen: str = "") -> bytes | None:
        """Returns the data as JSON; None if they are still those of the version that was `seen`."""
        with self._lock:
            if time.monotonic() >= self._next:
                self._look()
            return None if seen == self._version else self._content

    @property
    def _version(self) -> str:
        return f"{self._start}-{self._count}"

    def _look(self) -> None:
        begun, is_first = time.thread_time(), not self._content
        if self._folder.look() or is_first:
            self._count += 1
            self._content = orjson.dumps(self._described())
        used, now = 0.0 if is_first else time.thread_time() - begun, time.monotonic()
        self._spare = min(SPARE_SECONDS, self._spare + SHARE * (now - self._looked)) - used
        self._looked = now
        self._next = now + max(LEAST_SECONDS, -self._spare / SHARE)

    def _described(self) -> dict[str, Any]:
        folder = self._folder
        self._views.look(folder)
        damaged = [run.problem for run in folder.runs.values() if run.problem]
        problems = [folder.problem] if folder.problem else damaged[:LISTED]
        if len(damaged) > LISTED:
            problems.append(f"and {len(damaged) - LISTED} more")
        rows = [progress(manifest, folder.runs) for manifest in folder.manifests]
        labels = self._views.labels
        return {
            "version": self._version, "at": time.time(), "problems": problems,
            "progress": {"header": HEADER, "rows": rows},
            "running": {"header": RUNNING_HEADER, "rows": running(folder.runs.values(), self._views.labels)},
            "views": [self._view(view) for view in self._views.views],
            "troubles": self._troubles([(labels[name], run) for name, run in folder.runs.items() if name in labels]),
        }  # fmt: skip

    def _troubles(self, runs: Sequence[tuple[str, FollowedRun]]) -> dict[str, Any] | None:
        """Returns the table of runs that ended badly, the last one first."""

        def table() -> Text | None:
            rows = sorted(_ended(runs), key=lambda row: row["finished"], reverse=True)
            return troubles(pd.DataFrame(rows)) if rows else None

        return self._text("", runs, table)

    def _view(self, view: View) -> dict[str, Any]:
        own = [(label, run) for label, runs in view.runs.items() for run in runs]

        def table() -> Text | None:
            rows = [{**row, "family": self._views.families[row["label"]]} for row in _ended(own)]
            return recommendation(pd.DataFrame(rows), [group.label for group in view.groups]) if rows else None

        groups = [{"label": group.label, "colour": group.colour} for group in view.groups]
        return {
            "title": view.title, "groups": groups, "charts": view.charts(), "table": self._text(view.title, own, table),
        }  # fmt: skip

    def _text(
        self, name: str, runs: Sequence[tuple[str, FollowedRun]], made: Callable[[], Text | None]
    ) -> dict[str, Any] | None:
        """Returns a text of that name, which is made again only where other runs have ended since."""
        ended = tuple((label, run.folder.name, run.changes) for label, run in runs if run.outcome is not None)
        if name not in self._texts or self._texts[name][0] != ended:
            text = made()
            self._texts[name] = ended, None if text is None else {
                "sentence": text.sentence, "header": text.table.header, "rows": text.table.rows,
            }  # fmt: skip
        return self._texts[name][1]


def _ended(runs: Iterable[tuple[str, FollowedRun]]) -> Iterator[dict[str, Any]]:
    """Yields what tables say of each run that has ended, given its label."""
    for label, run in runs:
        outcome = run.outcome
        if outcome is not None and run.spec is not None:
            yield {
                "run": run.folder.name, "label": label, "seed": run.spec["seed"], "status": str(outcome.status),
                "last_line": outcome.last_line, "disturbed_because": "; ".join(outcome.disturbed_because),
                "finished": outcome.finished, "selected_step": outcome.final.get("selected_step"),
                **{name: outcome.final.get(name) for name in FINAL},
            }  # fmt: skip
