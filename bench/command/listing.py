"""`oho-bench list` lists what configurations and command lines can name, or describes one of these."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.command.option_help import describe_options
from bench.experiment.plugins import Catalogue, Found
from bench.experiment.registries import DATA_SETS, KINDS, TASKS
from bench.experiment.shipped import about, experiments, spaces
from bench.experiment.suggestions import suggestion
from bench.experiment.yaml_file import ConfigError, read_shared_yaml
from bench.protocol import Dimension, Space
from bench.records.durations import amount_of
from bench.records.plugins import PluginError
from bench.tasks.data_sets import DataSet, data_root

WIDTH = 110


def overview() -> str:
    """Returns all names, each with a line that describes it."""
    lines: list[str] = []
    for kind, described in KINDS.items():
        lines += _section(f"{kind}s", {name: _description(described.registry, name) for name in described.registry})
    for title, files in (("spaces", spaces()), ("configurations", experiments())):
        lines += _section(title, {name: _first_sentence(about(path)) for name, path in files.items()})
    return "\n".join(lines)


def data_sets(root: Path) -> str:
    """Returns all data sets, and which of them the data root has."""
    lines = [f"data root: {root}"]
    for name in DATA_SETS:
        try:
            here = "present" if DATA_SETS[name].present(root) else "missing"
        except PluginError:  # the other data sets are still useful; its description is the error
            here = "broken"
        lines.append(f"  {name:<16} {here:<8} {_description(DATA_SETS, name)}")
    return "\n".join(lines)


def describe(name: str) -> str:
    """Describes what a name of any kind stands for, which may be a plug-in such as `./restarts.py:METHOD`.

    Raises:
        ConfigError: if the name stands for nothing; the message suggests the nearest names.
        PluginError: if a plug-in cannot be used.
    """
    shipped = {**spaces(), **experiments()}
    try:
        texts = [_describe_entry(kind, name, found) for kind, found in Catalogue(Path()).find_all(name).items()]
    except KeyError:
        texts = []
    texts += [_describe_space(path) for known, path in spaces().items() if known == name]
    texts += [_describe_experiment(known, path) for known, path in experiments().items() if known == name]
    if not texts:
        known = [*(known for kind in KINDS.values() for known in kind.registry), *shipped]
        near = suggestion(name, known, most=3)
        raise ConfigError(f"there is nothing called {name!r}; {near}`oho-bench list` has all names")
    return "\n\n".join(texts)


def _section(title: str, lines: Mapping[str, str]) -> Iterator[str]:
    yield title
    width = max(22, *map(len, lines))
    for name, line in lines.items():
        yield f"  {name:<{width}} {line}"


def _description(registry: Mapping[str, Any], name: str) -> str:
    try:
        return registry[name].description
    except PluginError as error:  # the other names are still useful
        return str(error)


def _first_sentence(text: str) -> str:
    return textwrap.shorten(text.partition(". ")[0].removesuffix("."), WIDTH, placeholder=" ...")


def _describe_entry(kind: str, name: str, found: Found) -> str:
    entry = found.entry
    if kind in ("method", "task"):
        body = describe_options(entry)
    elif kind == "data set":
        body = _describe_data_set(name, entry)
    else:
        contents = {known: read_shared_yaml(path).content for known, path in experiments().items()}
        feeding = [known for known, content in contents.items() if name in (content.get("figures") or ())]
        body = _table({"fed by": ", ".join(feeding) or "no shipped one", "drawn by": f"oho-bench figure {found.name} DIR"})
    return _headed(name, kind, entry.description, body)


def _headed(name: str, kind: str, about_it: str, body: str) -> str:
    head = textwrap.fill(f"{name} ({kind}): {about_it}", WIDTH, break_on_hyphens=False)
    return f"{head}\n\n{body}"


def _table(rows: Mapping[str, object]) -> str:
    width = max(16, *map(len, rows))
    return "\n".join(f"  {name:<{width}} {value}" for name, value in rows.items())


def _describe_data_set(name: str, data: DataSet) -> str:
    tasks = [task for task, entry in TASKS.items() if not entry.required_options and entry.data_for(entry.defaults) == data]
    remedy = f"`oho-bench data fetch {name}` downloads it" if name in DATA_SETS else "its first run asks for it"
    here = "yes" if data.present(data_root()) else f"no; {remedy}"
    rows = {"kind": data.kind, "tasks": ", ".join(tasks) or "none", "present": here}
    if data.training_examples is not None:
        rows["examples"] = f"{data.training_examples:,} for training and validation"
    return _table(rows)


def _describe_space(path: Path) -> str:
    space = Space.model_validate(read_shared_yaml(path).content)
    rows = {name: _in_words(law) for name, law in space.hyperparameters.items()}
    for optimizer, laws in space.optimizers.items():
        rows |= {f"{name} of {optimizer}": _in_words(law) for name, law in laws.items()}
    return _headed(space.name, "space", about(path), _table(rows))


def _in_words(law: Dimension) -> str:
    low, high = sorted(map(law.value, law.bounds))
    words = [f"{low:g} to {high:g}"]
    words += ["logarithmic in 1 - value"] if law.log and law.complement else ["logarithmic"] if law.log else []
    words += ["whole numbers"] if law.integer else []
    return ", ".join(words)


def _describe_experiment(name: str, path: Path) -> str:
    content = read_shared_yaml(path).content
    methods = [method if isinstance(method, str) else method["name"] for method in content["methods"]]
    rows = {
        "file": path,
        "task": content["task"] if isinstance(content["task"], str) else content["task"]["name"],
        "methods": ", ".join(dict.fromkeys(methods)),
        "budget": " ".join(amount_of(amount, unit) for unit, amount in content["budget"].items()),
        "figures": ", ".join(content.get("figures") or ()) or "none",
        "run by": f"oho-bench run {name}",
    }
    return _headed(name, "configuration", about(path), _table(rows))
