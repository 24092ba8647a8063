"""What `make gpu` would do on a GPU, a little of each part on the CPU; and its kit."""

import csv
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from helpers import ROOT

from bench.measure.gpu import __main__ as script
from bench.measure.gpu import experiments, kit, timing
from bench.measure.gpu.correctness import correctness
from bench.measure.gpu.methods import methods
from bench.measure.gpu.speed import TUNED, populations, residual, steps

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_turn(monkeypatch):
    monkeypatch.setattr(timing, "TURNS", 1)
    monkeypatch.setattr(timing, "WARM_UP", 1)


def rows_of(folder, name):
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_hypergradients_are_right_here(tmp_path):
    correctness(tmp_path, CPU, True, 0.0)
    rows = rows_of(tmp_path, "correctness")
    found = [row for row in rows if "not available" not in row["largest relative error"]]
    assert all(float(row["largest relative error"]) <= float(row["asked"].removeprefix("≤ ")) for row in found)
    kinds = ["reverse mode", "the CPU", "members alone"]
    kinds += ["eager against graph", "eager against graph, looking ahead", "eager members against graph"]
    assert list(dict.fromkeys(row["what"] for row in found)) == kinds
    assert "TF32 in matrix products off" in (tmp_path / "correctness.md").read_text()


@pytest.mark.slow
def test_every_method_is_made_in_both_ways(tmp_path):
    methods(tmp_path, CPU, True, 0.0)
    rows = rows_of(tmp_path, "methods")
    assert len(rows) > 15
    assert all(float(row["difference of the test loss"]) < 1e-3 for row in rows)


def test_tables_of_speed_say_what_is_asked(tmp_path, monkeypatch):
    monkeypatch.delitem(TUNED, "Full")
    steps(tmp_path, CPU, True, 0.0)
    rows = {row["step"]: row for row in rows_of(tmp_path, "steps")}
    assert rows["Global"]["asked"] == "graph ≤ 0.25 ms"
    assert all(float(rows[name]["eager, ms"]) > 0 for name in ("Default", "plain SGD"))
    assert rows["Full"]["eager, ms"] == "KeyError: 'Full'"  # a step that fails costs the others nothing
    assert float(rows["published design over Global, ×"]["graph, ms"]) > 0
    populations(tmp_path, CPU, True, 0.0)
    assert [row["members"] for row in rows_of(tmp_path, "populations")] == ["1", "4"]


@pytest.mark.slow
def test_the_parts_of_a_step_of_resnet_are_measured(tmp_path):
    residual(tmp_path, CPU, True, 0.0)
    (row,) = rows_of(tmp_path, "residual")
    assert min(float(row["Global step"]), float(row["gradient"])) > 0


def test_experiments_are_run_and_those_that_are_late_are_cut_off(tmp_path, capsys):
    experiments.starts(tmp_path, CPU, True, 60.0)
    rows = rows_of(tmp_path, "starts")
    assert {(row["runs"], row["engine"], row["remarks"]) for row in rows} == {("2 of 2", "eager", "budget reached")}
    table = experiments._table(tmp_path, "late", "", "", CPU)
    path = experiments.experiment_file(Path("gpu/performance"))
    late = experiments.load_experiment(path, overrides=experiments.TINY, seeds=(20,))
    experiments._run(late, tmp_path / "late", table, 0.0)
    assert rows_of(tmp_path, "late")[-1]["remarks"] == "not begun: the time was over"


def test_as_many_epochs_are_planned_as_the_time_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "PILOT_STEPS", (2, 30))
    path = experiments.experiment_file(Path("gpu/distribution"))

    def planned(seconds):
        def load(budget):
            return experiments.load_experiment(path, overrides=[*experiments.TINY, f"budget.{budget}"], seeds=(20,))

        return experiments._epochs_within(seconds, load, tmp_path)  # the pilot is made once

    assert planned(0.1) == 1
    assert 1 < planned(100.0) < experiments.PAPER_EPOCHS
    assert planned(20_000.0) == experiments.PAPER_EPOCHS


def test_a_part_that_hangs_is_cut_off_and_the_next_one_is_done(tmp_path, monkeypatch, capfd):
    program = "import sys, time; time.sleep(60 if sys.argv[2] == 'steps' else 0)"
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: real([sys.executable, "-c", program, *command[3:]], **options)
    )
    monkeypatch.setattr(script, "GRACE_SECONDS", 0.3)
    given = Namespace(minutes=0.02, device="cpu", out=tmp_path, threads=1, tiny=True, only=None)
    begun = time.monotonic()
    assert not script.run_all(given, {})
    assert time.monotonic() - begun < 20
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("correctness: done")
    assert lines[2].startswith("steps: cut off at its share of 0 s")
    assert len(lines) == len(script.PARTS)


def test_a_kit_is_unpacked_once(tmp_path, monkeypatch):
    import gzip
    import zipfile

    (tmp_path / "wheels").mkdir()
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "found_only_here-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("found_only_here.py", "VALUE = 7")
    (tmp_path / "data" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"labels"))
    (tmp_path / "data" / kit.CIFAR10).write_bytes(b"archive")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert "PYTHONPATH" not in kit.unpack(tmp_path) or sys.version_info[:2] == (3, 12)
    monkeypatch.setattr(kit, "PYTHON", f"{sys.version_info.major}.{sys.version_info.minor}")
    environment = kit.unpack(tmp_path)
    assert kit.unpack(tmp_path) == environment
    assert __import__("found_only_here").VALUE == 7
    data = tmp_path / "unpacked" / "data"
    assert environment["OHO_DATA"] == str(data)
    assert (data / "MNIST/raw/t10k-labels-idx1-ubyte").read_bytes() == b"labels"
    assert kit.unpack(tmp_path / "none") == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_script_runs_here(tmp_path):
    command = [sys.executable, "-m", "bench.measure.gpu", "--tiny", "--device", "cpu", "--out", tmp_path, "--threads", "1"]
    command += ["--minutes", "60"]  # of a machine with other work
    answer = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT, env=dict(os.environ))
    assert answer.returncode == 0, answer.stderr
    tables = {path.stem for path in tmp_path.glob("*.md")}
    assert tables == {part.function for part in script.PARTS}
