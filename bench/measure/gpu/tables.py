"""Tables that are written anew with each row, as Markdown and as CSV, so that a part which is cut off keeps what it has."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from bench.measure.gpu.kit import FOLDER, commit_of_kit
from bench.measure.gpu.timing import CannotCaptureError
from bench.records.errors import one_line
from bench.run.environment import describe_environment, place_and_date

UNKNOWN = "unknown"


class Table:
    """One table in a folder; `title` and `words` stand above it, `columns` name what each row has."""

    def __init__(self, folder: Path, name: str, *, title: str, words: str, columns: Sequence[str], device: torch.device):
        self._folder, self._name, self._columns = folder, name, columns
        self._head = [f"# {title}", "", words, place_of(device), flags(), ""]
        self.rows: list[Sequence[str]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, *cells: object) -> None:
        """Adds a row and writes the table."""
        self.rows.append([one_line(str(cell)) for cell in cells])
        print(" | ".join(self.rows[-1]), flush=True)
        lines = [*self._head, _row(self._columns), _row(["---"] * len(self._columns)), *map(_row, self.rows)]
        (self._folder / f"{self._name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        with (self._folder / f"{self._name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([self._columns, *self.rows])

    def measure(self, *first: object, cells: Callable[[], Sequence[object]]) -> None:
        """Adds a row that begins with `first`; an error takes the place of the cells that it prevents."""
        try:
            found = list(cells())
        except CannotCaptureError as error:
            found = [str(error)]
        except Exception as error:
            found = [f"{type(error).__name__}: {error}"[:160]]
        self.add(*first, *found, *[""] * (len(self._columns) - len(first) - len(found)))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def place_of(device: torch.device) -> str:
    """Returns device, driver, versions, date and commit in one line."""
    place = describe_environment(device, torch.get_num_threads(), data=None)
    if place["commit"] == UNKNOWN:
        place["commit"] = commit_of_kit(FOLDER)[:12] or UNKNOWN
    driver = f" Driver {place['driver']}." if "driver" in place else ""
    return place_and_date(place) + driver


def flags() -> str:
    """Returns the flags of PyTorch on which speed and rounding depend."""
    found: Mapping[str, object] = {
        "TF32 in matrix products": torch.backends.cuda.matmul.allow_tf32,
        "TF32 in convolutions": torch.backends.cudnn.allow_tf32,
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
    }
    words = ("off", "on")
    return ", ".join(f"{name} {words[bool(value)]}" for name, value in found.items()) + ", unless a row says otherwise."
