"""Configurations, overrides and seeds with mistakes in them are used or refused in one line."""

import re
import shutil

import pytest
from fuzzing import BOMB, CASES, CHARACTERS, YAML, YAML_TOKEN, check_one_line, damaged, encoded, mutated, tried
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

from bench.command.command_line import seeds_of
from bench.experiment.expansion import load_experiment
from bench.experiment.yaml_file import ConfigError
from bench.records import run_id, title_of

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
    "shocks=[{label: \"\\e\", events: [{epoch: 1, rotate: 9}]}]", f"seeds={[*range(12_000)]}",
]  # fmt: skip
"""Each once ended in a traceback, a hang or a broken line."""


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_once_was_a_traceback_is_one_line(text):
    with pytest.raises(ConfigError) as error:
        load_experiment(ROOT / "configs/quick/distribution.yaml", overrides=[text])
    check_one_line(error.value, "--set ", ROOT)


SEEDS = st.one_of(
    st.text(CHARACTERS, max_size=12), st.text("0123456789-, ²٣", max_size=30),
    st.sampled_from(["0-999999999", "9" * 5000, "0-" + "9" * 30, ",".join(["0-99999"] * 1000)]),
)  # fmt: skip


def check_loaded(path, overrides=()):
    """The experiment can be planned and shown, or the mistake is told."""
    try:
        found = load_experiment(path, overrides=overrides)
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
            assert 0 < len(seeds_of(text)) <= 100_000
        except ConfigError as error:
            check_one_line(error, "--seeds ")

    check()
