"""Folders and checkpoints that are damaged are used, refused or told in one line; nothing else is written."""

import json
import re
import shutil

import pytest
from fuzzing import CASES, FUZZ, JSON, JSON_TOKEN, PLACES, REPORTS, RUNS, check_one_line, damaged, encoded, mutated, tried
from helpers import experiment, rewrite, run_one, stopped
from hypothesis import given
from hypothesis import strategies as st

from bench.command.status import describe
from bench.protocol.checkpoints import CHECKPOINT, resumable
from bench.records import Manifest, RecordError, ReportError, Status, run_id, write_manifest
from bench.run.loop import CHECKPOINT_VERSION
from reports.api import build_report
from reports.registry import FIGURES
from reports.replay import at_budgets
from reports.replay import describe as describe_replay
from reports.tables import read_tables

SHOCK = "shocks=[{events: [{epoch: 2, set: {lr: 0.01}}]}]"
METHODS = ["fixed", "oho-global", "oho-layerwise", "random-search"]
FOLDER = "results"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A results folder with a run of each method and one with a shock, and its files' contents.

    Its records have no sums: with them, every damage is found before it is read (test_json_files.py).
    """
    folder = tmp_path_factory.mktemp("sound")
    root, specs = folder / FOLDER, []
    for methods, overrides in ((METHODS, []), (["fixed"], [SHOCK]), (["oho-full"], ["methods.0.influence=collapsed"])):
        specs += [spec for spec in experiment(folder, *methods, overrides=overrides).specs if spec not in specs]
    for spec in specs:
        run_one(spec, root)
    for path in root.glob("*/records.jsonl"):
        rewrite(path, lambda text: text)
    write_manifest(root, Manifest("small", tuple(FIGURES), {"seeds": [0]}, tuple(map(run_id, specs))))
    return root, {path: path.read_bytes() for path in sorted(root.glob("*/*.json*"))}


HOLE = "a hole"


def slots(value):
    """Every place in nested containers, as container and key."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from slots(value[key])


@st.composite
def changed(draw, text):
    """A JSON object with one of its values changed, dropped or under another name."""
    content = json.loads(text)
    found = list(slots(content))
    container, key = found[int(draw(PLACES) * len(found))]
    how = draw(st.sampled_from(["value"] * 5 + ["drop", "name"]))
    if how == "value":
        container[key] = HOLE
    elif how == "drop" or isinstance(container, list):
        del container[key]
    else:
        names = st.sampled_from(["x", "run", "place", "hyper_lr", "scalar_trials", "kind", "name", "label"])
        container[draw(names)] = container.pop(key)
    return json.dumps(content).replace(json.dumps(HOLE), draw(JSON))


@st.composite
def damages(draw, contents):
    """One of a results folder's files, and what is in it instead."""
    path = draw(st.sampled_from(list(contents)))
    how = draw(st.sampled_from(["object"] * 4 + ["text", "bytes"]))
    if how == "bytes":
        return path, draw(damaged(contents[path]))
    text = contents[path].decode()
    if how == "text":
        return path, draw(mutated(text, JSON_TOKEN, JSON))
    if path.suffix == ".json":
        return path, encoded(draw(changed(text)))
    lines = text.splitlines()
    chosen = int(draw(PLACES) * len(lines))
    lines[chosen] = draw(changed(lines[chosen]))
    return path, encoded("\n".join(lines) + "\n")


def check_used(root, *uses):
    """Each of these works or tells the file, in one line."""
    for use in uses:
        try:
            use(root)
        except (RecordError, ReportError) as error:
            check_one_line(error, root, "--budget")


def with_damage(sound, cases, *uses):
    """Checks the uses of so many damaged folders."""
    root, contents = sound

    @tried(cases)
    @given(damages(contents))
    def check(damage):
        path, content = damage
        path.write_bytes(content)
        try:
            check_used(root, *uses)
        finally:
            path.write_bytes(contents[path])

    check()


@CASES
def test_a_damaged_folder_is_read_or_refused_in_one_line(cases, sound):
    with_damage(sound, cases, read_tables, describe, lambda root: describe_replay(at_budgets(root, 30, 10)))


BROKEN = {
    "no status": ("outcome.json", r'"status": "[a-z_]+"', '"x": 1', "status: one of"),
    "no name for a task": ("spec.json", r'"name": "digits-mlp"', '"name": [1]', "task: a mapping with a `name`"),
    "a list for a kind": ("records.jsonl", r'"kind": "evaluation"', '"kind": []', "kind must be one of"),
    "no moment": ("records.jsonl", r'"used": 0.0', '"used": null', "'used' must be a number;"),
    "too large": ("records.jsonl", r'"step": 0,', f'"step": {"9" * 5_000},', "number is infinity"),
    "not JSON": ("records.jsonl", r'"epoch": 0.0', '"epoch": NaN', "expected a JSON value"),
    "too large for an array": ("records.jsonl", r'"step": 0,', f'"step": {2**63},', "'step' must be a number;"),
    "too deep": ("records.jsonl", r'"scalars": {}', f'"scalars": {"[" * 100_000}', "depth limit"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_what_once_was_a_traceback_names_file_and_key(damage, sound):
    root, contents = sound
    name, old, new, words = BROKEN[damage]
    path = next(path for path in contents if path.name == name and re.search(old, contents[path].decode()))
    path.write_text(re.sub(old, lambda _: new, contents[path].decode(), count=1))
    try:
        with pytest.raises(RecordError, match=words) as error:
            read_tables(root)
    finally:
        path.write_bytes(contents[path])
    check_one_line(error.value, path)


@pytest.mark.parametrize("cases", [pytest.param(REPORTS, marks=FUZZ)])
def test_a_damaged_folder_is_reported_or_refused_in_one_line(cases, sound, tmp_path):
    with_damage(sound, cases, lambda root: build_report(root, tmp_path / "report.pdf"))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that was stopped: its spec, its results folder, and its checkpoint."""
    root = tmp_path_factory.mktemp("interrupted")
    spec = experiment(root, "oho-global").specs[0]
    stopped(spec, root, 3)
    return spec, root, (root / run_id(spec) / CHECKPOINT).read_bytes()


def check_warned(caplog, goes_on):
    """Where the checkpoint was not used, one line says so."""
    messages = list(caplog.messages)
    caplog.clear()
    assert len(messages) == (0 if goes_on else 1)
    for message in messages:
        check_one_line(message, "/")


def test_one_wrong_bit_in_a_checkpoint_is_found(interrupted, caplog):
    spec, root, content = interrupted
    place = len(content) // 2
    (root / run_id(spec) / CHECKPOINT).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert resumable(root / run_id(spec), CHECKPOINT_VERSION) is None
    assert "is damaged" in caplog.text


@CASES
def test_a_damaged_checkpoint_is_whole_or_told_in_one_line(cases, interrupted, caplog):
    spec, root, content = interrupted
    folder = root / run_id(spec)

    @tried(cases)
    @given(damaged(content))
    def check(damage):
        (folder / CHECKPOINT).write_bytes(damage)
        check_warned(caplog, resumable(folder, CHECKPOINT_VERSION) is not None)

    check()


@pytest.mark.parametrize("cases", [4, pytest.param(RUNS, marks=FUZZ)])
def test_a_run_with_a_damaged_checkpoint_goes_on_or_starts_anew(cases, interrupted, tmp_path, caplog):
    spec, root, content = interrupted
    whole = run_one(spec, tmp_path).final["test_loss"]
    folder = tmp_path / run_id(spec)

    @tried(cases)
    @given(damaged(content))
    def check(damage):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(root / run_id(spec), folder)
        (folder / CHECKPOINT).write_bytes(damage)
        outcome = run_one(spec, tmp_path)
        assert outcome.status is Status.BUDGET_REACHED
        assert outcome.final["test_loss"] == whole
        check_warned(caplog, outcome.conditions["resumptions"])

    check()
