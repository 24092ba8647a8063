"""The command line as a user meets it, in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from helpers import experiment, oho_bench, rewrite_lines, run_one, write_config
from typer.testing import CliRunner

from bench.cli import app
from bench.records import RecordError, Status, experiments_in, read_manifests, read_run, read_runs


def test_help_imports_neither_torch_nor_wandb():
    code = "import sys, bench.cli; print(sorted({'torch', 'wandb', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    answer = oho_bench("--help")
    assert answer.returncode == 0
    assert all(name in answer.stdout for name in ("run", "status", "report", "figure", "data", "list"))


def test_run_report_and_run_again(tmp_path):
    config, out = write_config(tmp_path, "fixed", "oho-global"), tmp_path / "runs"
    first = oho_bench("run", config, "--out", out, "--seeds", "0-2")
    assert first.returncode == 0, first.stderr
    assert "6 runs to do" in first.stdout
    before = {run.id: (run.folder / "records.jsonl").stat().st_mtime_ns for run in read_runs(out)}
    again = oho_bench("run", config, "--out", out, "--seeds", "0-2")
    assert "0 runs to do, 6 done already" in again.stdout
    assert before == {run.id: (run.folder / "records.jsonl").stat().st_mtime_ns for run in read_runs(out)}
    assert "small: 6 runs: 6 budget reached" in oho_bench("status", out).stdout
    report = oho_bench("report", out, "-o", tmp_path / "report.pdf")
    assert report.returncode == 0, report.stderr
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    drawn = oho_bench("figure", "distribution", out, "-o", tmp_path / "one.pdf")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "one.csv").read_text().count("\n") == 7


def test_dry_run_writes_nothing(tmp_path):
    answer = oho_bench("run", write_config(tmp_path, "fixed", "adam"), "--out", tmp_path / "runs", "--dry-run")
    assert "2 runs to do" in answer.stdout
    assert "120 steps" in answer.stdout
    assert not (tmp_path / "runs").exists()


MISTAKES = {
    "no such file": ["run", "nowhere.yaml"],
    "device": ["run", "CONFIG", "--device", "tpu"],
    "seeds": ["run", "CONFIG", "--seeds", "a"],
    "output": ["run", "CONFIG", "--out", "CONFIG/x"],
    "empty folder": ["report", "EMPTY"],
    "empty status": ["status", "EMPTY"],
    "figure": ["figure", "violins", "EMPTY"],
    "data": ["data", "fetch", "imagenet"],
    "flag": ["run", "CONFIG", "--sed", "1"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(mistake, tmp_path):
    (tmp_path / "empty").mkdir()
    places = {"CONFIG": str(write_config(tmp_path, "fixed")), "EMPTY": str(tmp_path / "empty")}
    arguments = [re.sub("CONFIG|EMPTY", lambda match: places[match[0]], text) for text in MISTAKES[mistake]]
    answer = oho_bench(*arguments, cwd=tmp_path)
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    if mistake != "flag":
        assert len(answer.stderr.strip().splitlines()) == 1, answer.stderr


def test_a_missing_data_set_without_network_is_one_line(tmp_path):
    config = write_config(tmp_path, "fixed")
    config.write_text(config.read_text().replace("digits-mlp", "mnist-mlp"))
    blocked = {**os.environ, "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    answer = oho_bench("run", config, "--out", tmp_path / "runs", "--root", tmp_path, env=blocked)
    assert answer.returncode == 2
    (line,) = answer.stderr.strip().splitlines()
    assert "OHO_DATA" in line
    assert "Traceback" not in answer.stderr


def test_a_corrupted_record_line_is_named_and_left_alone(tmp_path):
    out = tmp_path / "runs"
    oho_bench("run", write_config(tmp_path, "fixed"), "--out", out)
    (run,) = read_runs(out)
    path = run.folder / "records.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:20]
    path.write_text("\n".join(lines) + "\n")
    answer = oho_bench("report", out)
    assert answer.returncode == 2
    assert re.search(r"records\.jsonl:2:\d+: ", answer.stderr)
    assert path.read_text() == "\n".join(lines) + "\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_stopped_from_outside_keeps_what_was_recorded(number, code, tmp_path):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    command = [sys.executable, "-m", "bench.cli", "run", str(config), "--out", str(out), "--set", "budget.seconds=60"]
    process = subprocess.Popen([*command, "--set", "evaluations=600"], stderr=subprocess.PIPE, text=True)
    records = None
    for _ in range(600):
        time.sleep(0.1)
        records = next(out.glob("*/records.jsonl"), None)
        if records and records.read_text().count('"evaluation"') > 4:
            break
    process.send_signal(number)
    assert process.wait(20) == code
    run = read_run(records.parent)
    assert len(run.evaluations) > 3
    if number != signal.SIGKILL:
        assert run.outcome.status is Status.INTERRUPTED
        assert "the same command goes on" in process.stderr.read()
    assert json.loads((records.parent / "spec.json").read_text())["seed"] == 0
    (manifest,) = read_manifests(out)
    assert manifest.runs == (run.id,)
    after = oho_bench("run", config, "--out", out, "--set", "budget.seconds=60", "--set", "evaluations=600", "--dry-run")
    assert "1 run to do" in after.stdout


def test_a_diverged_run_does_not_stop_the_others(tmp_path):
    config = write_config(tmp_path, "fixed", "adam")
    config.write_text(config.read_text().replace("{name: fixed}", "{name: fixed, lr: 1e30}"))
    answer = oho_bench("run", config, "--out", tmp_path / "runs")
    assert answer.returncode == 0
    assert "diverged" in answer.stderr
    assert "1 budget reached, 1 diverged" in oho_bench("status", tmp_path / "runs").stdout


def test_options_that_do_not_fit_the_network_are_told_before_anything_runs(tmp_path):
    config, out = write_config(tmp_path, "fixed", "oho-layerwise"), tmp_path / "runs"
    answer = oho_bench("run", config, "--out", out, "--set", "methods.1.groups=99")
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "Layer-wise OHO" in answer.stderr
    assert "1 to 3 groups" in answer.stderr
    assert not list(out.glob("*/records.jsonl"))


def test_seeds_that_are_added_later_join_the_experiment(tmp_path):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    for seeds in ("0", "2", "0-1"):
        answer = oho_bench("run", config, "--out", out, "--seeds", seeds)
        assert "older plan" not in answer.stderr
    (manifest,) = read_manifests(out)
    assert len(manifest.runs) == 3
    assert manifest.config["seeds"] == [0, 1, 2]
    assert "small: 3 runs" in oho_bench("status", out).stdout


def test_another_plan_of_the_same_name_replaces_the_older_one_and_says_so(tmp_path):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    oho_bench("run", config, "--out", out)
    answer = oho_bench("run", config, "--out", out, "--set", "budget.steps=30")
    assert "1 of the older plan's runs of experiment 'small' stay in the folder" in answer.stderr
    (manifest,) = read_manifests(out)
    assert len(manifest.runs) == 1


DAMAGE = {
    "a number is missing": (lambda line: line.pop("used"), r"records\.jsonl:\d+:1: 'used' must be a number;"),
    "a text for a number": (lambda line: line.update(test_loss="low"), r"records\.jsonl:\d+:1: 'test_loss' must be"),
    "another kind": (lambda line: line.update(kind="guess"), r"records\.jsonl:\d+:1: kind must be one of evaluation, "),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_records_are_one_line(damage, tmp_path):
    out = tmp_path / "runs"
    run_one(experiment(tmp_path, "fixed").specs[0], out)
    (path,) = out.glob("*/records.jsonl")
    change, words = DAMAGE[damage]
    rewrite_lines(path, lambda records: change(records[-2]))
    with pytest.raises(RecordError, match=words):
        read_run(path.parent)
    path.write_text("")
    with pytest.raises(RecordError, match="records are gone"):
        read_run(path.parent)


def test_a_place_that_is_no_results_folder_is_named_for_what_it_is(tmp_path):
    out = tmp_path / "runs"
    run_one(experiment(tmp_path, "fixed").specs[0], out)
    (run,) = (path.parent for path in out.glob("*/spec.json"))
    (tmp_path / "empty").mkdir()
    places = {
        run: "the folder of one run", tmp_path / "none": "no such folder", tmp_path / "small.yaml": "not a folder",
        tmp_path / "empty": "no experiment has been run", out: "runs, but the list of them, experiments/NAME.json, is gone",
    }  # fmt: skip
    for place, words in places.items():
        with pytest.raises(RecordError, match=words):
            experiments_in(place)


CUTS = {
    "cut": lambda run: os.truncate(run / "records.jsonl", 300), "no records": lambda run: (run / "records.jsonl").unlink(),
    "no spec": lambda run: (run / "spec.json").unlink(),
}  # fmt: skip


@pytest.mark.parametrize("cut", CUTS)
def test_an_ended_run_whose_files_are_gone_runs_again(cut, tmp_path):
    words = ["run", str(write_config(tmp_path, "fixed", "adam")), "--out", str(tmp_path / "runs"), "--in-process"]
    status = ["status", str(tmp_path / "runs")]
    assert CliRunner().invoke(app, words).exit_code == 0
    run = next((tmp_path / "runs").glob("*/spec.json")).parent
    CUTS[cut](run)
    assert "1 budget reached, 1 damaged" in CliRunner().invoke(app, status).stdout
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0
    assert "1 run to do, 1 done already" in answer.stdout
    assert "2 budget reached" in CliRunner().invoke(app, status).stdout


def test_an_empty_results_folder_is_a_variable_that_is_not_set():
    answer = CliRunner().invoke(app, ["run", "x.yaml", "--out", ""])
    assert answer.exit_code == 2
    assert "the name of a folder is expected" in answer.stderr


WRONG = {
    "run": "Missing argument 'CONFIG...'; `oho-bench run --help` tells",
    "run x.yaml --bogus": "No such option: --bogus",
    "run x.yaml --seeds": "Option '--seeds' requires an argument",
    "audit x --steps many": "Invalid value for '--steps'",
    "frobnicate": "No such command 'frobnicate'; `oho-bench --help` tells what is allowed",
    "data frobnicate": "No such command 'frobnicate'; `oho-bench data --help` tells what is allowed",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_command_line_is_one_line(words):
    answer = CliRunner().invoke(app, words.split(), prog_name="oho-bench")
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith(f"oho-bench: {WRONG[words]}")
    assert answer.stderr.count("\n") == 1


def test_without_a_command_there_is_help():
    answer = CliRunner().invoke(app, [])
    assert "Usage: " in answer.output
    assert "oho-bench: " not in answer.output
