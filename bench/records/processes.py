"""The processes that worked on a run: each resumption adds one.  What each of them was stays with the run.

Only processes whose work is in the run count.  One that was killed counts as far as its last checkpoint, since the next one
begins there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

SECONDS_DEPEND_ON = {
    "device_name": "device", "machine": "kind of machine", "threads": "number of threads", "torch": "version of torch",
}  # fmt: skip
"""Facts of an environment without which a run's seconds mean nothing, by what they are called.

Seconds of a run that was continued with another of these are nobody's.  Other changes, such as that of the commit, are
only reported: a folder may hold runs of several commits, too.
"""
LONGEST_CALIBRATION = 3600.0
"""Seconds above which a calibration cannot have been measured."""
NOT_COMPARED = ("finished", "dirty")


class Process(TypedDict):
    """A process's environment, what was measured while it worked, and why its own seconds are void, as sentences."""

    environment: Mapping[str, Any]
    conditions: Mapping[str, Any]
    disturbed_because: list[str]


def calibration(conditions: Mapping[str, Any]) -> float | None:
    """Returns the seconds that a fixed piece of work took when the machine was quickest, before or after the run."""
    probes = conditions.get("probe_seconds")
    numbers = [seconds for seconds in probes if type(seconds) is float] if isinstance(probes, list | tuple) else []
    return min((seconds for seconds in numbers if 0 < seconds < LONGEST_CALIBRATION), default=None)


def disturbances(processes: Sequence[Process]) -> list[str]:
    """Returns why the seconds of a run are void.  The arguments are its processes, oldest first."""
    count = len(processes)
    reasons = [
        reason if count == 1 else f"{reason} (in process {number} of {count})"
        for number, process in enumerate(processes, start=1)
        for reason in process["disturbed_because"]
    ]
    found = _differences([process["environment"] for process in processes])
    changed = [(title, found[name]) for name, title in SECONDS_DEPEND_ON.items() if name in found]
    return reasons + [f"it was continued with another {title} ({values})" for title, values in changed]


def changes(environments: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns what differed between a run's processes, such as `another commit (1234567, then 89abcde)`."""
    found = _differences(environments)
    return [f"another {SECONDS_DEPEND_ON.get(name, name.replace('_', ' '))} ({then})" for name, then in found.items()]


def _differences(environments: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the facts that were not the same in all environments, with their values one after another."""
    facts = [_facts(environment) for environment in environments] if len(environments) > 1 else []
    found = {}
    for name in facts[0] if facts else ():
        values = [each[name] for each in facts if name in each]
        steps = [value for value, before in zip(values, [None, *values], strict=False) if value != before]
        if len(steps) > 1:
            found[name] = ", then ".join(steps)
    return found


def _facts(environment: Mapping[str, Any]) -> dict[str, str]:
    facts = {name: str(value) for name, value in environment.items() if name not in NOT_COMPARED}
    if "commit" in facts:
        facts["commit"] = facts["commit"][:12] + (" with changes" if environment.get("dirty") else "")
    return facts
