"""`oho-bench check` checks one method against the rules that every method must keep, and prints one line per rule."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.experiment.yaml_file import ConfigError, parse_value
from bench.testing import MethodContract


def check(name: str, options: Sequence[str], task: str) -> int:
    """Prints whether the method keeps each rule, and returns how many it breaks.

    `options` are texts KEY=VALUE.  Raises `ConfigError` for a mistake in the method, the options or the task.
    """
    own = {"method": name, "options": dict(map(_option, options)), "task": {**MethodContract.task, "name": task}}
    contract = type("Contract", (MethodContract,), own)()
    contract.spec()
    broken = 0
    for rule, sentence in contract.rules().items():
        reason = _reason(getattr(contract, rule))
        broken += bool(reason)
        print(f"FAIL  {sentence}\n      {reason}" if reason else f"ok    {sentence}", flush=True)
    print(f"{name} keeps {len(contract.rules()) - broken} of {len(contract.rules())} rules")
    return broken


def _reason(rule: Callable[[], None]) -> str:
    """Returns why a rule is broken, or an empty string if it is kept."""
    try:
        rule()
    except AssertionError as error:
        return str(error)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {' '.join(str(error).split())} ({frame.filename}:{frame.lineno})"
    return ""


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigError(f"--set {text}: KEY=VALUE is expected, an option of the method such as lr=0.1")
    parsed = parse_value(text, value)
    return key, dict(parsed) if isinstance(parsed, Mapping) else parsed
