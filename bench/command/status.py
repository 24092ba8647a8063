"""`oho-bench status` describes what a results folder holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.records import Status, experiments_in, names_in, read_outcome, state_of


def describe(root: Path, *, called: Path | None = None) -> str:
    """Returns a line per experiment, then one per failed, void or changed run.  Reads only outcomes and the files' lengths.

    `called` is the name to print for the folder, if it was unpacked from an archive, in which no run can be repeated.

    Runs whose seconds alone are void are only counted: without seconds as their budget, there may be many.
    """
    named = called or root
    manifests = experiments_in(root)
    begun = names_in(root)
    lines: list[str] = []
    failures: dict[str, str] = {}
    void: dict[str, str] = {}
    changed: dict[str, str] = {}
    disturbed: set[str] = set()
    protocols: set[int] = set()
    for manifest in manifests:
        counts: Counter[str] = Counter()
        untrained = 0
        for identity in manifest.runs:
            outcome = read_outcome(root / identity) if identity in begun else None
            counts[state_of(root / identity, outcome)] += 1
            protocols |= {outcome.protocol} if outcome else set()
            untrained += outcome is not None and outcome.final.get("selected_step") == 0
            if outcome and outcome.status is Status.FAILED:
                failures[identity] = outcome.last_line or "no message"
            elif outcome and not outcome.valid:
                void[identity] = "; ".join(outcome.invalid_because)
            elif outcome and outcome.disturbed_because:
                disturbed.add(identity)
            if outcome and (changes := outcome.changes):
                changed[identity] = ", ".join(changes)
        parts = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sorted(counts.items()))
        said = f"; {untrained} return{'s' if untrained == 1 else ''} the untrained model" if untrained else ""
        lines.append(f"{manifest.experiment}: {len(manifest.runs)} runs: {parts}{said}")
        if counts["damaged"] and named == root:
            lines.append("repeat the command to run the damaged runs again")
    lines += [f"failed {named / identity}: {reason}" for identity, reason in failures.items()]
    lines += [f"not valid {named / identity}: {reason}" for identity, reason in void.items()]
    lines += [f"resumed {named / identity}: with {what}" for identity, what in changed.items()]
    if disturbed:
        runs = "1 run" if len(disturbed) == 1 else f"{len(disturbed)} runs"
        lines.append(f"the clock of {runs} was disturbed: losses are valid, seconds are not; `oho-bench report` says why")
    if void and named == root:
        lines.append("`oho-bench run --again-invalid` repeats the runs that are not valid")
    if len(protocols) > 1:
        lines.append(f"runs of protocols {sorted(protocols)} cannot be compared; use one folder for each")
    return "\n".join(lines)
