"""Writes what a run leaves on disk and reads it back.  Imports no torch."""

from bench.records.errors import RecordError, ReportError, StorageError
from bench.records.identity import run_id, run_ids, title_of
from bench.records.plans import Manifest, experiments_in, planned_specs, read_manifests, write_manifest
from bench.records.run_folder import (
    PROTOCOL,
    ROUNDING,
    SCHEMA,
    Outcome,
    Run,
    is_damaged,
    names_in,
    read_outcome,
    read_run,
    read_runs,
    result_at,
    state_of,
)
from bench.records.run_writer import RunWriter, write_outcome
from bench.records.schema import KINDS, Status

__all__ = [
    "KINDS",
    "PROTOCOL",
    "ROUNDING",
    "SCHEMA",
    "Manifest",
    "Outcome",
    "RecordError",
    "ReportError",
    "Run",
    "RunWriter",
    "Status",
    "StorageError",
    "experiments_in",
    "is_damaged",
    "names_in",
    "planned_specs",
    "read_manifests",
    "read_outcome",
    "read_run",
    "read_runs",
    "result_at",
    "run_id",
    "run_ids",
    "state_of",
    "title_of",
    "write_manifest",
    "write_outcome",
]
