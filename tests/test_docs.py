"""What the documentation says can be done, and the site that it becomes."""

import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from programs import printed_by

from bench.experiment.expansion import load_experiment
from bench.experiment.registries import METHODS, TASKS
from bench.experiment.schema import ExperimentFields

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FRAME = """\
experiment: fragment
task: {name: mnist-mlp}
budget: {epochs: 60}
seeds: [0]
space: fair
"""
"""What parts of a configuration are shown without."""


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize(("place", "said"), [(0, r"test loss 2\.\d+\n"), (1, r"test loss 0\.\d+, learning rate \d\.\d+\n")])
def test_the_loops_of_the_tutorial_print_what_it_says(place, said):
    """With fewer epochs, after which the numbers begin alike."""
    program = blocks(DOCS / "tutorials/own-loop.md", "python")[place]
    assert program.count("range(50)") == 1
    assert re.fullmatch(said, printed_by(program.replace("range(50)", "range(16)")))


def test_what_is_shown_of_a_loop_runs():
    printed = printed_by("\n".join(blocks(DOCS / "in-your-loop.md", "python")))
    assert re.fullmatch(r"loss \d\.\d{3} {'lr/global': .*}\n", printed)


def configurations():
    """Each that is shown, whole, with how many runs it is."""
    (readme,) = blocks(ROOT / "README.md", "yaml")
    (tutorial,) = blocks(DOCS / "tutorials/comparison.md", "yaml")
    (methods,) = blocks(DOCS / "how-to/methods.md", "yaml")
    (shocks,) = blocks(DOCS / "how-to/shocks.md", "yaml")
    yield "README", readme, 9
    yield "tutorial", tutorial, 15
    yield "methods", FRAME + methods, 8
    yield "shocks", FRAME + "methods: [{name: fixed}]\n" + shocks, 4


@pytest.mark.parametrize(("text", "runs"), [pytest.param(text, runs, id=name) for name, text, runs in configurations()])
def test_configurations_shown_are_valid(text, runs, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(text)
    assert len(load_experiment(path).specs) == runs


def test_the_space_shown_is_valid(tmp_path):
    (space,) = blocks(DOCS / "how-to/experiments.md", "yaml")
    (tmp_path / "narrow.yaml").write_text(space)
    path = tmp_path / "shown.yaml"
    path.write_text(FRAME.replace("space: fair", "space: narrow") + "methods: [{name: step}, {name: schedule-free-sgd}]\n")
    assert len(load_experiment(path).specs) == 2


def test_every_key_of_an_experiment_is_explained():
    explained = (DOCS / "how-to/experiments.md").read_text()
    assert [key for key in ExperimentFields.model_fields if f"\n| `{key}` |" not in explained] == []


def test_the_citation_is_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


class Page(HTMLParser):
    """Collects the anchors of a page, its visible words, and what a browser would fetch to show it."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.fetched, self.words = set(), [], ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors.add(found.get("id"))
        if tag in ("script", "img", "iframe", "source") or (tag == "link" and found.get("rel") != "canonical"):
            self.fetched += [address for name in ("src", "href") if (address := found.get(name))]

    def handle_data(self, data):
        self.words += data


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(tmp_path).as_posix(): Page(path) for path in tmp_path.rglob("*.html")}
    outside = {address for page in pages.values() for address in page.fetched if re.match(r"(?:https?:)?//", address)}
    assert outside == set()
    assert set(METHODS) <= pages["reference/methods.html"].anchors
    assert set(TASKS) <= pages["reference/tasks.html"].anchors
    for entry in METHODS.values():
        assert all(key in pages["reference/methods.html"].words for key in entry.options.model_fields)
    assert {"oho.OHO", "oho.audit.audit"} <= pages["reference/oho.html"].anchors
    anchors = pages["reference/bench.html"].anchors
    assert {"bench.protocol.Method", "bench.records.read_runs", "bench.tasks.DataSet"} <= anchors
    assert "reports.registry.FigureEntry" in anchors
