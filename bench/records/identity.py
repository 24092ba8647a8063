"""What a run is called: an id by what affects its result, and a title for readers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.records.schema import FOR_FIGURES

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def run_id(spec: Mapping[str, Any]) -> str:
    """Returns the first 16 hexadecimal digits of SHA-256 over the canonical JSON of what affects the result of a spec, or
    of a part of one.

    Labels, families and units are left out, because only figures use them, and so is the path of data whose `content` is
    known.
    """
    return run_ids([spec])[0]


def run_ids(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the id of each spec.  What specs share, as the specs of an experiment do, is written as JSON only once."""
    known: dict[int, str] = {}  # by the objects' addresses, which stay theirs since the specs keep them
    return [_hash_of(spec, known) for spec in specs]


def _hash_of(spec: Mapping[str, Any], known: dict[int, str]) -> str:
    texts = []
    for key in sorted(spec):
        if not _is_left_out(key, spec):
            value = spec[key]
            if id(value) not in known:
                known[id(value)] = _canonical(_affecting(value))
            texts.append(f"{_canonical(key)}:{known[id(value)]}")
    return hashlib.sha256(f"{{{','.join(texts)}}}".encode()).hexdigest()[:16]


def _affecting(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _affecting(item) for key, item in value.items() if not _is_left_out(key, value)}
    return value


def _is_left_out(key: str, part: Mapping[str, Any]) -> bool:
    is_units = key == "units" and isinstance(part[key], Mapping)
    return key in FOR_FIGURES or is_units or (key == "path" and "content" in part)


def title_of(spec: Mapping[str, Any]) -> str:
    """Returns a run's title: its method's label and, if there is one, its shock."""
    shock = spec.get("shock")
    return title(spec["method"]["label"], shock["label"] if shock else "")


def title(method_label: str, shock_label: str) -> str:
    """Returns the title of a run of a method with a shock; the shock's label is empty where there is none."""
    return f"{method_label}; {shock_label}" if shock_label else method_label
