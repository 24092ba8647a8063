"""The commit that a run reports is one of ours, and the versions are those of the packages that its method needs."""

import re
import shutil
import subprocess
from importlib.metadata import version

from helpers import experiment, run_one

from bench.records import Manifest, read_outcome, run_id, write_manifest
from bench.records.frames import results
from bench.run import environment
from bench.run.environment import commit_of
from bench.run.node import _hashed, node_name


def git(folder, *words):
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    answer = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def test_a_repository_that_encloses_the_installation_is_not_ours(tmp_path):
    installed = tmp_path / ".venv/site-packages/bench/run/environment.py"
    installed.parent.mkdir(parents=True)
    shutil.copy(environment.__file__, installed)
    assert commit_of(installed) == ("unknown", False)
    git(tmp_path, "init")
    (tmp_path / "thesis.tex").write_text("Chapter 1")
    git(tmp_path, "add", "thesis.tex")
    git(tmp_path, "commit", "-m", "Mine")
    commit_of.cache_clear()
    assert commit_of(installed) == ("unknown", False)


def test_a_repository_that_tracks_the_file_is(tmp_path):
    clone = tmp_path / "bench/environment.py"
    clone.parent.mkdir()
    shutil.copy(environment.__file__, clone)
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "Ours")
    assert commit_of(clone) == (git(tmp_path, "rev-parse", "HEAD"), False)
    clone.write_text("changed")
    commit_of.cache_clear()
    assert commit_of(clone)[1]


def test_a_run_reports_the_version_of_its_methods_package(tmp_path):
    """Also of the method that a search repeats."""
    plain, search = experiment(tmp_path, "fixed", "gp-search").specs
    assert run_one(search, tmp_path).environment["prodigyopt"] == version("prodigyopt")
    assert "prodigyopt" not in run_one(plain, tmp_path).environment


def test_a_package_that_is_not_installed_is_left_out(monkeypatch):
    """W&B, for example, without which runs go on."""
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package"))
    versions = environment._versions.__wrapped__(())
    assert versions.keys() == {"torch", "oho-bench"}


def test_a_machine_has_one_name_that_says_nothing_of_it_or_the_one_its_user_gives_it(tmp_path, monkeypatch):
    spec = experiment(tmp_path, "fixed", overrides=["budget.steps=3"]).specs[0]
    outcome = run_one(spec, tmp_path / "one")
    _hashed.cache_clear()
    assert outcome.environment["node"] == node_name()
    assert re.fullmatch("[0-9a-f]{8}", node_name())
    monkeypatch.setenv("OHO_NODE", "left-desk")
    write_manifest(tmp_path / "two", Manifest("two", (), {}, (run_one(spec, tmp_path / "two") and run_id(spec),)))
    (row,) = results(tmp_path / "two").to_dict("records")
    assert (row["node"], row["driver"]) == ("left-desk", None)
    assert row["device_name"] == outcome.environment["device_name"]
    assert 0 < row["calibration_seconds"] == min(read_outcome(tmp_path / "two" / run_id(spec)).conditions["probe_seconds"])
