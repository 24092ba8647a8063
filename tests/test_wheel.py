"""The wheel, installed into empty environments and used from a folder outside of the clone."""

import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("baselines", "bench", "configs", "oho", "reports", "pyproject.toml", "README.md", "LICENSE")
LIBRARIES = Path(pytest.__file__).parents[1]
"""Where this environment has what others have written."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def called(*words, cwd=None):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, cwd=cwd, env=clean)


def pip(*words):
    result = called(sys.executable, "-m", "pip", "--disable-pip-version-check", *words)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from what belongs to the package, outside of the clone."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns("__pycache__", "out")
    for name in SOURCES:
        path = ROOT / name
        _ = shutil.copytree(path, source / name, ignore=unwanted) if path.is_dir() else shutil.copy(path, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", built, source)
    (path,) = built.glob("oho_bench-*.whl")
    return path


def environment(folder, wheel, libraries):
    """An environment with the wheel, which also sees a folder of libraries; returns its `bin`."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(f"{libraries}\n")  # of what is named in there, editable installs are not read
    pip("--python", folder / "bin/python", "install", "--no-deps", "--no-index", wheel)
    return folder / "bin"


@pytest.fixture(scope="module")
def suite(tmp_path_factory, wheel):
    return environment(tmp_path_factory.mktemp("suite"), wheel, LIBRARIES)


@pytest.fixture(scope="module")
def library(tmp_path_factory, wheel):
    """An environment with what `pip install oho-bench` brings, and nothing else."""
    libraries = tmp_path_factory.mktemp("libraries")
    programs = environment(tmp_path_factory.mktemp("library"), wheel, libraries)
    (ours,) = distributions(name="oho-bench", path=map(str, programs.parent.glob("lib/python*/site-packages")))
    for name in needed(ours.requires):
        for top in {Path(file).parts[0] for file in distribution(name).files} - {"..", "__pycache__"}:
            if not (libraries / top).exists():
                (libraries / top).symlink_to(LIBRARIES / top)
    return programs


def needed(requirements, found=()):
    """Names of the distributions that requirements ask for, and those that these ask for, as far as they are here."""
    for requirement in requirements or ():
        name = re.split(r"[^\w.-]", requirement)[0]
        try:
            if "extra ==" not in requirement and name not in found:
                found = needed(distribution(name).requires, (*found, name))
        except PackageNotFoundError:
            continue  # it is for another system
    return found


STEP = """
import sys, torch, oho
from pathlib import Path
model = torch.nn.Linear(3, 1)
optimizer = oho.OHO(model.parameters(), oho.SGD(lr=0.1))
before = model.weight.clone()
optimizer.step(lambda: model(torch.ones(2, 3)).square().mean(), lambda: model(torch.ones(1, 3)).square().mean())
assert not torch.equal(model.weight, before)
print(Path(oho.__file__), (Path(oho.__file__).parent / "py.typed").is_file())
"""


def test_the_library_alone_makes_a_step_and_the_command_says_what_it_lacks(library, tmp_path):
    step = called(library / "python", "-c", STEP, cwd=tmp_path)
    assert step.returncode == 0, step.stderr
    assert step.stdout.split() == [str(next(library.parent.glob("lib/python*/site-packages/oho/__init__.py"))), "True"]
    answer = called(library / "oho-bench", "list", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "pip install 'oho-bench[bench]'" in answer.stderr


def test_the_suite_has_its_configurations_and_the_files_of_its_reports(suite, tmp_path):
    listed = called(suite / "oho-bench", "list", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "oho-global" in listed.stdout
    code = "from bench.experiment.shipped import configurations; print(configurations())"
    configs = Path(called(suite / "python", "-c", code, cwd=tmp_path).stdout.strip())
    assert configs.is_relative_to(suite.parent)
    ours = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    assert {path.relative_to(configs) for path in configs.rglob("*.yaml")} == ours
    planned = called(suite / "oho-bench", "run", configs / "quick/distribution.yaml", "--dry-run", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "runs to do" in planned.stdout
    assert not (tmp_path / "runs").exists()
    ours = {path.name for path in (ROOT / "reports").iterdir() if path.suffix in (".typ", ".html", ".js")}
    assert ours <= {path.name for path in (configs.parent / "reports").iterdir()}
    for package in ("oho", "bench", "baselines", "reports"):
        assert (configs.parent / package / "py.typed").is_file()


def test_files_of_the_users_own_with_names_of_ours_are_not_ours(suite, tmp_path):
    for name in ("bench", "baselines", "configs", "oho", "reports"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')\n")
    (config,) = suite.parent.glob("lib/python*/site-packages/configs/quick/distribution.yaml")
    small = ["--set", "budget.epochs=1", "--set", "tracking.mode=disabled", "--seeds", "0", "--device", "cpu"]
    ran = called(suite / "oho-bench", "run", config, *small, "--out", "runs", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    reported = called(suite / "oho-bench", "report", "runs", "-o", "report.pdf", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
