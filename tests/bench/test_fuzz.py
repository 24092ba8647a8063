"""Whatever is fed in, by a user or by a damaged disk, is used or refused in one line: no traceback, no hang, no code run.

The default suite tries some hundred cases of each kind, always the same ones; `make test-fuzz` ten thousand new ones.
"""

import json
import re
import shutil
from itertools import pairwise

import pytest
from helpers import ROOT, experiment, rewrite, run_one
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_resume import stopped

from bench.command_line import parse_seeds
from bench.config import load_experiment
from bench.loop import CHECKPOINT_VERSION
from bench.records import Manifest, RecordError, Status, run_id, title_of, write_manifest
from bench.saving import CHECKPOINT, resumable
from bench.status import describe
from bench.yaml_file import ConfigError
from reports.api import build_report
from reports.errors import ReportError
from reports.registry import FIGURES
from reports.replay import at_budgets
from reports.replay import describe as describe_replay
from reports.tables import read_tables

FEW, MANY, REPORTS, RUNS = 150, 10_000, 50, 200
FUZZ = [pytest.mark.fuzz, pytest.mark.timeout(7_200)]
CASES = pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=FUZZ)])
LONGEST_LINE = 1_500


def tried(cases):
    """So many cases; the few of the default suite are always the same."""
    return settings(
        max_examples=cases, derandomize=cases == FEW, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def check_one_line(error, *starts):
    message = str(error)
    assert message.startswith(tuple(map(str, starts))), message
    assert message.isprintable(), message
    assert len(message) < LONGEST_LINE


NUMBERS = [
    "0", "-1", "0.5", "1e400", "-1e400", ".inf", "-.inf", ".nan", "9" * 30, "9" * 400, "9" * 5000, "1e-400", "0x1F", "1_0",
]  # fmt: skip
TEXTS = [
    "x", "é", "''", '"a\\nb"', '"\\0"', '"\\x1b[31m"', '"\\ud800"', '"\\u2028"', "x" * 20_000, "'{x}'", "fixed", "%s",
    "a" * 300, '"../../fair"', '"/"', '"."', '".."', "2001-01-01", "2001-01-01 12:30:45Z", "12:30:45",
    "|\n  x\n", ">\n x",
]  # fmt: skip
STRUCTURES = [
    "", "~", "null", "true", "[]", "{}", "[1, [2]]", "{name: fixed}", "{name: [fixed]}", "{name: {a: 1}}", "{? [a, b] : c}",
    "{null: 1}", "{1: 2}", "{<<: {name: fixed}}", "[" * 400 + "]" * 400, "[" * 5_000, "{a: " * 400 + "}" * 400, "? a\n: b",
    "&a [*a]", "&a {b: *a}", "&a", "*a", "<<: *a", "&a fixed", "{<<: *a}", "[*a, *a]", "{{a: 1}: 2}",
    "!!python/object/apply:os.system ['touch evil']", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!int x",
    "!!float x", "!!str 1", "!!timestamp x", "!unknown x", "!unknown [x]", "!!null x", "!!bool x", "!!merge x", "!!map x",
]  # fmt: skip
MARKS = [
    "---\n", "\n---\na: 1\n", "\n...\n", "%YAML 9.9\n---\n", "%TAG ! x\n", "\t", "\ufeff", "\0", "\x07", "\r", "\x85", ": ",
    "#",
]  # fmt: skip
TENFOLD = ", ".join(f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]" for before, name in pairwise("abcdefghij"))
BOMB = f"{{a: &a [1], {TENFOLD}}}"
"""Aliases of aliases: a thousand million values."""
CHARACTERS = st.characters()
YAML = st.one_of(
    *map(st.sampled_from, (NUMBERS, TEXTS, STRUCTURES, [*MARKS, BOMB])),
    st.text(CHARACTERS, max_size=8), st.integers().map(str), st.floats().map(str),
)  # fmt: skip
YAML_TOKEN = re.compile(r"[^\s{}\[\],:]+")
JSON = st.one_of(
    st.sampled_from([
        "null", "true", '""', "{}", "[]", "[null]", "[[1]]", '{"name": 1}', "-1", "0", "0.5", "1e400", "-1e400", "NaN",
        "Infinity", "-Infinity", "9" * 30, "9" * 400, "9" * 5000, "1e300", "1e-320", "[" * 100 + "]" * 100, "[" * 100_000,
        '{"a":' * 400 + "1" + "}" * 400, '"\\ud800"', '"\\u0000"', '"\\n"', '"\\u001b[31m"', '"../../x"', '"/"', '"2026"',
        '"$x$ $\\\\frac"', '"<b>#x*_$"', '"' + "x" * 5_000 + '"', '"oho-full"', '"momentum"',
    ]),
    st.text(max_size=6).map(json.dumps), st.floats().map(json.dumps), st.integers().map(str),
)  # fmt: skip
JSON_TOKEN = re.compile(r'"[^"]*"|[^\s{}\[\],:"]+')
PLACES = st.floats(0, 1, exclude_max=True)


@st.composite
def mutated(draw, text, token_pattern, values):
    """A text of which tokens and lines are changed, dropped or doubled."""
    for _ in range(draw(st.integers(1, 3))):
        tokens, lines = list(token_pattern.finditer(text)), text.splitlines(keepends=True)
        if not tokens:
            break
        token, other = (tokens[int(draw(PLACES) * len(tokens))] for _ in range(2))
        line = int(draw(PLACES) * len(lines))
        how = draw(st.sampled_from(["token"] * 6 + ["swap", "insert", "drop line", "double line", "cut"]))
        if how == "drop line":
            text = "".join(lines[:line] + lines[line + 1 :])
        elif how == "double line":
            text = "".join(lines[: line + 1] + lines[line:])
        else:
            new = {"swap": other.group(), "cut": ""}[how] if how in ("swap", "cut") else draw(values)
            rest = {"insert": token.start(), "cut": len(text)}.get(how, token.end())
            text = text[: token.start()] + new + text[rest:]
    return encoded(text)


@st.composite
def damaged(draw, content):
    """Bytes, a few of which are changed, dropped or added."""
    for _ in range(draw(st.integers(1, 4))):
        place = int(draw(PLACES) * (len(content) + 1))
        end = place + draw(st.sampled_from([0, 1, 1, 1, 8, 10_000]))
        content = content[:place] + draw(st.binary(max_size=4)) + content[end:]
    return content


def encoded(text):
    return text.encode("utf-8", "surrogatepass")


CONFIGS = sorted(path for path in ROOT.glob("configs/*/*.yaml") if path.parent.name != "spaces")
FAIR = (ROOT / "configs/spaces/fair.yaml").read_bytes()


@st.composite
def configurations(draw):
    """A real configuration and its space, one of them mutated, or noise."""
    content = draw(st.sampled_from(CONFIGS)).read_bytes()
    how = draw(st.sampled_from(["text"] * 6 + ["bytes", "space", "noise"]))
    if how == "noise":
        return draw(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(encoded))), FAIR
    if how == "bytes":
        return draw(damaged(content)), FAIR
    change = mutated((FAIR if how == "space" else content).decode(), YAML_TOKEN, YAML)
    return (content, draw(change)) if how == "space" else (draw(change), FAIR)


KEYS = st.sampled_from([
    "experiment", "figures", "task", "budget", "seeds", "space", "methods", "shocks", "threads", "evaluations", "tracking",
    "name", "lr", "0", "1", "-1", "999", "9" * 5_000, "over", "events", "set", "steps", "epochs", "seconds", "optimizer",
    "label", "epoch", "²", "", "*", "٣",
])  # fmt: skip
OVERRIDES = st.lists(
    st.one_of(
        st.tuples(st.lists(KEYS, min_size=1, max_size=4).map(".".join), YAML).map("=".join),
        st.text(CHARACTERS, max_size=20), st.sampled_from(["a." * 3_000 + "b=1"]),
    ),
    min_size=1, max_size=3,
)  # fmt: skip
REFUSED = [
    "task.²=1", "task.name={a: 1}", "figures=[[distribution]]", "space=''", "space=/", f"space={'x' * 300}", 'space="\\0"',
    "evaluations=" + "9" * 400, "x={{a: 1}: 2}", "seeds=" + "[" * 400, "methods=&a [*a]", f"methods={BOMB}",
    "methods.0.label='a\n\n b'", "a." * 3_000 + "b=1", "seeds=!!set {a, b}",
    "shocks=[{label: \"\\e\", events: [{epoch: 1, rotate: 9}]}]", f"seeds={[*range(30_000)]}",
]  # fmt: skip
"""Each once ended in a traceback, a hang or a broken line."""


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_once_was_a_traceback_is_one_line(text):
    with pytest.raises(ConfigError) as error:
        load_experiment(ROOT / "configs/quick/distribution.yaml", figures=FIGURES, overrides=[text])
    check_one_line(error.value, "--set ", ROOT)


SEEDS = st.one_of(
    st.text(CHARACTERS, max_size=12), st.text("0123456789-, ²٣", max_size=30),
    st.sampled_from(["0-999999999", "9" * 5000, "0-" + "9" * 30, ",".join(["0-99999"] * 1000)]),
)  # fmt: skip


def check_loaded(path, overrides=()):
    """The experiment can be planned and shown, or the mistake is told."""
    try:
        found = load_experiment(path, figures=FIGURES, overrides=overrides)
    except ConfigError as error:
        check_one_line(error, path.parents[1], "--set ")
        return
    for spec in {spec["method"]["label"]: spec for spec in found.specs}.values():
        assert re.fullmatch("[0-9a-f]{16}", run_id(spec))
        assert f"{title_of(spec)} {spec['seed']} {spec['budget']['amount']:g}".isprintable()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of configurations with one of spaces beside it."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "configs").mkdir()
    shutil.copytree(ROOT / "configs/spaces", folder / "spaces")
    return folder


@CASES
def test_a_configuration_is_used_or_refused_in_one_line(cases, place, monkeypatch):
    monkeypatch.chdir(place)

    @tried(cases)
    @given(configurations())
    def check(case):
        path = place / "configs/case.yaml"
        path.write_bytes(case[0])
        (place / "spaces/fair.yaml").write_bytes(case[1])
        check_loaded(path)

    check()
    assert not list(place.glob("**/evil"))


@CASES
def test_an_override_is_used_or_refused_in_one_line(cases):
    @tried(cases)
    @given(st.sampled_from(CONFIGS), OVERRIDES)
    def check(path, overrides):
        check_loaded(path, overrides)

    check()


@CASES
def test_seeds_are_numbers_or_refused_in_one_line(cases):
    @tried(cases)
    @given(SEEDS)
    def check(text):
        try:
            assert 0 < len(parse_seeds(text)) <= 100_000
        except ConfigError as error:
            check_one_line(error, "--seeds ")

    check()


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


@pytest.mark.parametrize("cases", [10, pytest.param(RUNS, marks=FUZZ)])
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
