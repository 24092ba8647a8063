"""The command line: one module for each kind of command, which `--help` lists in the order of their import."""

from __future__ import annotations

from bench.cli import runs, folders, reporting, trackers, names  # isort: skip
from bench.cli.application import app

__all__ = ["app", "folders", "names", "reporting", "runs", "trackers"]
