"""Methods of a user's own, by file, by module, by `plugins:` and by entry points, and mistakes in them."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from faults import command, the_line
from helpers import ROOT, experiment, run_one
from processes import within_a_run

from bench.command.audit import audit_run
from bench.experiment.expansion import load_experiment
from bench.experiment.plugins import _distributions, entry_of
from bench.experiment.registries import KINDS, METHODS
from bench.experiment.yaml_file import ConfigError
from bench.records import read_runs, run_id
from bench.records.plugins import PluginError, _sources, stored

EXAMPLE = (ROOT / "examples/own_method.py").read_text()
ONLINE = """\
from dataclasses import replace
from bench.online.methods import GLOBAL

METHOD = replace(GLOBAL, description="my OHO", label="Mine online")
"""
REGISTERING = EXAMPLE + '\nMETHODS = {"restarts": METHOD}\n'
RAISING = "a = 1\n\nraise RuntimeError('not\\nnow')\n"
METADATA = "Metadata-Version: 2.1\nName: own-methods\nVersion: 1.2\n"


@pytest.fixture(autouse=True)
def no_plugins():
    """As in a new process: nothing is imported, and the entry points are looked up anew."""

    def forget():
        for name in [name for name in sys.modules if name.startswith(("oho_bench_plugin_", "own_methods"))]:
            del sys.modules[name]
        _sources.clear()
        _distributions.cache_clear()
        for about in KINDS.values():
            vars(about.registry).pop("installed", None)

    forget()
    yield forget
    forget()


def configured(folder, method, plugins="", **files):
    """An experiment of one method, in a folder with these Python files."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    path = folder / "own.yaml"
    path.write_text(
        f"experiment: own\n{plugins}figures: [distribution]\ntask: digits-mlp\nbudget: {{steps: 40}}\nseeds: 0\n"
        f"space: fair\nthreads: 1\nevaluations: 4\ntracking: {{mode: disabled}}\nmethods:\n  - {method}\n"
    )
    return path


def the_spec(path):
    (spec,) = load_experiment(path).specs
    return spec


def package(folder, **files):
    """A package on the path, with files of its own."""
    for place, text in files.items():
        path = folder / "own_methods" / f"{place}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def distribution(folder, entry_points):
    """What an installer writes of a package."""
    about = folder / "own_methods-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(METADATA)
    (about / "top_level.txt").write_text("own_methods\n")
    (about / "entry_points.txt").write_text(f"[oho_bench.methods]\n{entry_points}\n")


def test_a_file_beside_the_configuration(tmp_path):
    path = configured(tmp_path, '{name: "./restarts.py:METHOD", epochs: 2, lr: 0.1}', restarts=EXAMPLE)
    spec = the_spec(path)
    origin = spec["method"]["origin"]
    assert (spec["method"]["name"], spec["method"]["label"]) == ("restarts.py:METHOD", "Restarts")
    assert (origin["file"], origin["place"]) == ("restarts.py", "METHOD")
    assert command("run", path, "--out", tmp_path / "runs").exit_code == 0
    (run,) = read_runs(tmp_path / "runs")
    assert run.evaluations[-1]["step"] == 40
    assert (tmp_path / "runs/plugins" / origin["hash"] / "restarts.py").read_text() == EXAMPLE


def test_a_file_that_registers_a_name(tmp_path):
    path = configured(tmp_path, "restarts", "plugins: [./mine.py]\n", mine=REGISTERING)
    method = the_spec(path)["method"]
    assert (method["name"], method["origin"]["place"]) == ("restarts", "METHODS.restarts")
    assert command("run", path, "--out", tmp_path / "runs").exit_code == 0


def test_a_module_on_the_path(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "site").mkdir()
    package(tmp_path / "site", __init__="", restarts=EXAMPLE)
    path = configured(tmp_path, '{name: "own_methods.restarts:METHOD"}')
    method = the_spec(path)["method"]
    assert (method["name"], method["origin"]["module"]) == ("own_methods.restarts:METHOD", "own_methods.restarts")
    assert "file" not in method["origin"]
    assert command("run", path, "--out", tmp_path / "runs").exit_code == 0
    assert not (tmp_path / "runs/plugins").exists()


def test_an_entry_point_of_an_installed_package(tmp_path, monkeypatch, no_plugins):
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "site").mkdir()
    package(tmp_path / "site", __init__="", restarts=EXAMPLE, broken="import nothing_of_this_name")
    distribution(tmp_path / "site", "restarts = own_methods.restarts:METHOD\nbroken = own_methods.broken:METHOD")
    no_plugins()
    method = the_spec(configured(tmp_path, "restarts"))["method"]
    assert (method["name"], method["origin"]["distribution"]) == ("restarts", "own-methods 1.2")
    listed = command("list").stdout
    assert re.search(r"  restarts +SGD with cosine restarts\n", listed)
    assert "broken" in METHODS
    assert re.search(r"  broken +own-methods: its entry point broken = .* cannot be loaded \(ModuleNotFound", listed)
    with pytest.raises(ConfigError, match=r"own.yaml:11:5: own-methods: its entry point broken = "):
        load_experiment(configured(tmp_path, "broken"))
    search = "{name: random-search, over: {name: oho-global}}"
    with pytest.raises(ConfigError, match="random-search cannot repeat 'oho-global'; it can repeat: fixed, "):
        load_experiment(configured(tmp_path, search))


MISTAKES = {
    "no such file": ("./other.py:METHOD", "", r"other\.py: cannot be read \(No such file or directory\)"),
    "a folder": ("./folder.py:METHOD", "", r"folder\.py: cannot be read \(Is a directory\)"),
    "not Python": ("./mine.py:METHOD", "a = 1\nb = = 2\n", r"mine\.py:2:5: SyntaxError: invalid syntax"),
    "not text": ("./mine.py:METHOD", "a = 1\0", r"mine\.py.*: (SyntaxError|ValueError): source code .*null bytes"),
    "nothing of that name": ("./mine.py:METHOD", f"{EXAMPLE}OTHER = METHOD\ndel METHOD\n", r"no 'METHOD'; it has: OTHER$"),
    "no entries at all": ("./mine.py:METHOD", "a = 1\n", r"\./mine\.py: has no 'METHOD'; it has: no entries"),
    "no name": ("./mine.py", EXAMPLE, r"\./mine\.py: an entry of the file is expected, such as \./mine\.py:METHOD"),
    "another type": ("./mine.py:METHOD", "METHOD = {}\n", r"\./mine\.py:METHOD: is a dict; a MethodEntry is expected"),
    "a task": ("./mine.py:T", "from bench.tasks.image_tasks import DIGITS_MLP as T", "is a TaskEntry; a MethodEntry is"),
    "an exception": ("./mine.py:METHOD", RAISING, r"mine\.py:3:1: RuntimeError: not now"),
    "an exit": ("./mine.py:METHOD", "import sys\nsys.exit(3)\n", r"mine\.py:2:1: SystemExit: 3"),
    "a missing package": (
        "./mine.py:METHOD", "import nothing_there\n", r"mine\.py:1:1: ModuleNotFoundError: .*else it imports must be",
    ),
    "an unknown module": ("nothing.there:METHOD", "", r"nothing\.there: cannot be imported .*; give a file as"),
    "a module without a file": ("sys:METHOD", "", r"sys: is built into Python and has no file$"),
    "not a module": ("./mine:METHOD", "", r"\./mine: is neither a file, \./NAME\.py, nor a "),
    "an option of a reserved name": (
        "./mine.py:METHOD", EXAMPLE.replace("epochs", "units"), r"option of a method cannot be called 'units'; ",
    ),
    "a method to repeat, of one that repeats none": (
        "./mine.py:METHOD", EXAMPLE.replace("epochs", "over"), r"mine\.py:\d+:1: ValueError: .* cannot be called 'over'; ",
    ),
    "options of another kind": (
        "./mine.py:METHOD", EXAMPLE.replace("options=RestartsOptions", "options=dict"),
        r"mine\.py:\d+:1: TypeError: options: a class that extends Options is expected \(given <class 'dict'>",
    ),
    "an option that it has not": ("./mine.py:METHOD", EXAMPLE, r":11:41: unknown key .*; allowed: lr, epochs$"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_file_is_one_line_with_its_place(mistake, tmp_path):
    (tmp_path / "folder.py").mkdir()
    name, text, expected = MISTAKES[mistake]
    speed = ", speed: 1" if "option" in mistake else ""
    path = configured(tmp_path, f'{{name: "{name}", lr: 0.1{speed}}}', mine=text)
    line = the_line(command("run", path, "--out", tmp_path / "runs"), 2)
    assert re.search(expected, line), line
    assert re.match(rf"oho-bench: {re.escape(str(path))}:11:\d+: ", line), line
    assert not (tmp_path / "runs").exists()


REGISTERED = {
    "nothing": ("a = 1\n", r"mine\.py: registers nothing; it must map .* METHODS, TASKS, DATA_SETS, FIGURES$"),
    "no mapping": ("METHODS = 1\n", r"mine\.py: METHODS must map names to entries"),
    "no entry": ("METHODS = {'own': 1}\n", r"mine\.py: METHODS\['own'\]: is a int; a MethodEntry is expected"),
    "no name": (f"{EXAMPLE}METHODS = {{1: METHOD}}\n", r"mine\.py: METHODS has an entry called 1; a name is expected"),
    "a name that is taken": (f"{EXAMPLE}METHODS = {{'fixed': METHOD}}\n", r"there already is a method 'fixed'; choose"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", REGISTERED)
def test_a_mistake_in_what_a_file_registers_is_one_line_with_its_place(mistake, tmp_path):
    text, expected = REGISTERED[mistake]
    path = configured(tmp_path, "fixed", "plugins: [./mine.py]\n", mine=text)
    line = the_line(command("run", path), 2)
    assert re.search(rf"own\.yaml:2:11: .*{expected}", line), line


def test_a_module_that_raises_is_one_line_with_its_place(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path, __init__="", wrong="a = 1\nb = a / 0\n", lost="import nothing_there\n")
    with pytest.raises(ConfigError, match=r"own_methods\.wrong: .*wrong\.py:2:1: ZeroDivisionError: division by zero"):
        load_experiment(configured(tmp_path, '{name: "own_methods.wrong:METHOD"}'))
    with pytest.raises(ConfigError, match=r"own_methods\.lost: .*lost\.py:1:1: ModuleNotFoundError: No module"):
        load_experiment(configured(tmp_path, '{name: "own_methods.lost:METHOD"}'))


def test_an_edited_file_is_a_new_run_by_the_new_code(tmp_path):
    """Also where the edit is as long as what it replaces, and made within the same second."""
    method = '{name: "./mine.py:METHOD", lr: 0.1, epochs: 1}'
    first = the_spec(configured(tmp_path, method, mine=EXAMPLE))
    second = the_spec(configured(tmp_path, method, mine=EXAMPLE.replace('label="Restarts"', 'label="Restarta"')))
    assert run_id(first) != run_id(second)
    assert second["method"]["label"] == "Restarta"
    assert run_id(the_spec(configured(tmp_path, method, mine=EXAMPLE))) == run_id(first)
    assert not (tmp_path / "__pycache__").exists()


def test_an_edited_module_is_a_new_run_whichever_of_its_files_it_was(tmp_path, monkeypatch, no_plugins):
    monkeypatch.syspath_prepend(tmp_path)
    path = configured(tmp_path, '{name: "own_methods.restarts:METHOD"}')
    found = set()
    for helper in ("A = 1\n", "A = 22\n"):
        package(tmp_path, __init__="", restarts=EXAMPLE, helper=helper)
        found.add(run_id(the_spec(path)))
        no_plugins()
    assert len(found) == 2


def test_a_run_is_audited_after_the_file_has_been_moved_away(tmp_path, no_plugins):
    path = configured(tmp_path, '{name: "./mine.py:METHOD", meta_rate: 1e-3}', mine=ONLINE)
    assert command("run", path, "--out", tmp_path / "runs").exit_code == 0
    (run,) = read_runs(tmp_path / "runs")
    (tmp_path / "mine.py").unlink()
    no_plugins()
    assert "Mine online on digits, seed 0" in audit_run(run.folder, steps=5, at=None, data_root=None)
    shutil.rmtree(tmp_path / "runs/plugins")
    no_plugins()
    assert "mine.py: cannot be read (No such file or directory)" in the_line(command("audit", run.folder), 2)


def test_a_run_of_a_method_that_this_version_has_not_is_one_line(tmp_path):
    spec = experiment(tmp_path, "oho-global").specs[0]
    run_one(spec, tmp_path)
    (run,) = read_runs(tmp_path)
    older = {**spec, "method": {**spec["method"], "name": "oho-older"}}
    moved = tmp_path / run_id(older)
    run.folder.rename(moved)
    (moved / "spec.json").write_text((moved / "spec.json").read_text().replace('"oho-global"', '"oho-older"'))
    assert "this version has no method 'oho-older'" in the_line(command("audit", moved), 2)


def test_list_describes_a_plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "restarts.py").write_text(EXAMPLE)
    text = command("list", "./restarts.py:METHOD").stdout
    assert "./restarts.py:METHOD (method): SGD with cosine restarts" in text
    assert re.search(r"\n  epochs +\[5\] +whole number", text)
    assert "no 'OTHER'; it has: METHOD" in the_line(command("list", "./restarts.py:OTHER"), 2)
    assert "is a function, which is not an entry" in the_line(command("list", "./restarts.py:draw"), 2)


@pytest.mark.slow
def test_the_process_that_works_knows_them_wherever_the_command_is_given_and_goes_on_after_a_kill(tmp_path):
    """The whole way of a user: from a folder of their own, killed, given again, and a report with the label."""
    configured(tmp_path, '{name: "./restarts.py:METHOD", label: "My restarts", lr: 0.1}', restarts=EXAMPLE)
    places = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "bench", "run", "own.yaml", "--set", "budget.steps=2000", "--set", "evaluations=100"]
    process = subprocess.Popen(words, cwd=tmp_path, env=places, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = within_a_run(tmp_path / "runs", records=4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "outcome.json").exists()
    answer = subprocess.run(words, cwd=tmp_path, env=places, capture_output=True, text=True, timeout=200)
    assert answer.returncode == 0, answer.stderr
    assert [found.outcome.status for found in read_runs(tmp_path / "runs")] == ["budget_reached"]
    report = command("report", tmp_path / "runs", "-o", tmp_path / "report.pdf")
    assert report.exit_code == 0, report.stderr
    assert "My restarts" in (tmp_path / "report.html").read_text()


def test_a_stored_file_that_was_changed_is_refused_before_it_is_executed(tmp_path, no_plugins):
    path = configured(tmp_path, "./restarts.py:METHOD", restarts=EXAMPLE)
    part, mark = the_spec(path)["method"], tmp_path / "mark"
    kept = stored(tmp_path / "runs", part["origin"])
    kept.parent.mkdir(parents=True)
    kept.write_text(f"{EXAMPLE}\nopen({str(mark)!r}, 'w')\n")
    no_plugins()
    with pytest.raises(PluginError, match="not the file that made the run"):
        entry_of("method", part, tmp_path / "runs")
    assert not mark.exists()
