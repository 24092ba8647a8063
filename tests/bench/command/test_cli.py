"""The command line as a user meets it."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from faults import command, the_line
from helpers import experiment, oho_bench, rewrite_lines, run_one, write_config
from typer.testing import CliRunner

from bench.cli import app
from bench.records import (
    Manifest,
    RecordError,
    experiments_in,
    read_manifests,
    read_run,
    read_runs,
    write_manifest,
)  # fmt: skip


def test_help_imports_neither_torch_nor_wandb():
    code = "import sys, bench.cli; print(sorted({'torch', 'wandb', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    answer = oho_bench("--help")
    assert answer.returncode == 0
    assert all(name in answer.stdout for name in ("run", "status", "report", "figure", "data", "list"))


def test_run_report_and_run_again(tmp_path):
    config, out = write_config(tmp_path, "fixed", "oho-global"), tmp_path / "runs"
    words = ["run", config, "--out", out, "--seeds", "0-1", "--set", "budget.steps=20"]
    first = oho_bench(*words)
    assert first.returncode == 0, first.stderr
    assert "4 runs to do" in first.stdout
    before = {run.id: (run.folder / "records.jsonl").stat().st_mtime_ns for run in read_runs(out)}
    again = command(*words)
    assert "0 runs to do, 4 done already" in again.stdout
    assert before == {run.id: (run.folder / "records.jsonl").stat().st_mtime_ns for run in read_runs(out)}
    assert "small: 4 runs: 4 budget reached" in command("status", out).stdout
    report = command("report", out, "-o", tmp_path / "report.pdf")
    assert report.exit_code == 0, report.stderr
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    drawn = command("figure", "distribution", out, "-o", tmp_path / "one.pdf")
    assert drawn.exit_code == 0, drawn.stderr
    assert (tmp_path / "one.csv").read_text().count("\n") == 5


def test_dry_run_writes_nothing(tmp_path):
    answer = command("run", write_config(tmp_path, "fixed", "adam"), "--out", tmp_path / "runs", "--dry-run")
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
def test_a_mistake_is_one_line_and_exit_code_2(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"CONFIG": str(write_config(tmp_path, "fixed")), "EMPTY": str(tmp_path / "empty")}
    arguments = [re.sub("CONFIG|EMPTY", lambda match: places[match[0]], text) for text in MISTAKES[mistake]]
    answer = command(*arguments)
    assert answer.exit_code == 2
    assert "Traceback" not in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1, answer.stderr


def test_a_mistaken_option_is_called_by_its_own_name(tmp_path):
    (tmp_path / "results").mkdir()
    swapped = the_line(command("figure", tmp_path / "results", "sets"), 2)
    assert swapped.endswith(f"the figure's name comes first: oho-bench figure sets {tmp_path / 'results'}")
    line = the_line(command("run", write_config(tmp_path, "fixed"), "--population", "0", "--dry-run"), 2)
    assert line.endswith("--population 0: auto, off or a whole number from 2 to 1000 is expected")


def test_more_threads_than_processors_are_told_of(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    config = write_config(tmp_path, "fixed")
    command("run", config, "--dry-run", "--set", "threads=2")
    assert not caplog.messages
    command("run", config, "--dry-run", "--set", "threads=3")
    assert "threads: 3 are more than the 2 processors of this machine" in caplog.text


def test_a_call_from_python_runs_what_it_was_called_with(tmp_path):
    """Not what the program itself was given; a mistake that the process that works finds shows which it was."""
    call = f"from bench.cli import app; app(['run', {str(write_config(tmp_path, 'fixed'))!r}, '--seeds', 'three'])"
    answer = subprocess.run([sys.executable, "-c", call, "report", "nowhere"], capture_output=True, text=True, timeout=100)
    assert answer.returncode == 2
    assert answer.stderr.startswith("oho-bench: --seeds three: ")


def test_a_shipped_configuration_is_run_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["run", "quick/distribution", "--dry-run", "--seeds", "0"]
    assert "10 runs to do" in command(*words).stdout
    (tmp_path / "quick").mkdir()
    shutil.copy(write_config(tmp_path, "fixed"), tmp_path / "quick/distribution")
    assert "1 run to do" in command(*words).stdout
    line = the_line(command("run", "quick/distributio", "--dry-run"), 2)
    assert "quick/distributio: there is no such file and no shipped configuration of that name; did you" in line


def test_only_the_experiments_that_feed_a_figure_are_run(tmp_path):
    config = write_config(tmp_path, "fixed")
    other = tmp_path / "other.yaml"
    other.write_text(config.read_text().replace("[distribution]", "[anytime]").replace("steps: 60", "steps: 30"))
    answer = command("run", config, other, "--figure", "anytime", "--dry-run")
    assert "1 run to do, 0 done already; budget to spend: 30 steps" in answer.stdout
    line = the_line(command("run", config, other, "--figure", "violins", "--dry-run"), 2)
    assert line.endswith("--figure violins: no experiment here feeds it; the figures that are fed: anytime, distribution")


def test_an_outcome_of_a_status_that_is_none_any_more_is_one_line(tmp_path):
    run_one(experiment(tmp_path, "fixed").specs[0], tmp_path)
    (path,) = tmp_path.glob("*/outcome.json")
    path.write_text(path.read_text().replace('"budget_reached"', '"finished"'))
    with pytest.raises(RecordError, match=r"outcome\.json:1:1: status: one of budget_reached, .*\(given 'finished'\)"):
        read_run(path.parent)


def test_a_missing_data_set_without_network_is_one_line(tmp_path, monkeypatch):
    config = write_config(tmp_path, "fixed")
    config.write_text(config.read_text().replace("digits-mlp", "mnist-mlp"))
    for name in ("https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert "OHO_DATA" in the_line(command("run", config, "--out", tmp_path / "runs", "--root", tmp_path), 2)


def test_a_corrupted_record_line_is_named_and_left_alone(tmp_path):
    out = tmp_path / "runs"
    run_one(experiment(tmp_path, "fixed").specs[0], out)
    (run,) = read_runs(out)
    write_manifest(out, Manifest("small", ("distribution",), {}, (run.id,)))
    path = run.folder / "records.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:20]
    path.write_text("\n".join(lines) + "\n")
    assert re.search(r"records\.jsonl:2:\d+: ", the_line(command("report", out), 2))
    assert path.read_text() == "\n".join(lines) + "\n"


def test_a_diverged_run_does_not_stop_the_others(tmp_path):
    config = write_config(tmp_path, "fixed", "adam")
    config.write_text(config.read_text().replace("{name: fixed}", "{name: fixed, lr: 1e30}"))
    answer = command("run", config, "--out", tmp_path / "runs")
    assert answer.exit_code == 0
    assert "diverged" in answer.stderr
    assert "1 budget reached, 1 diverged" in command("status", tmp_path / "runs").stdout


def test_options_that_do_not_fit_the_network_are_told_before_anything_runs(tmp_path):
    config, out = write_config(tmp_path, "fixed", "oho-layerwise"), tmp_path / "runs"
    line = the_line(command("run", config, "--out", out, "--set", "methods.1.groups=99"), 2)
    assert "Layer-wise OHO" in line
    assert "1 to 3 groups" in line
    assert not list(out.glob("*/records.jsonl"))


def test_seeds_that_are_added_later_join_the_experiment(tmp_path, caplog):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    for seeds in ("0", "2", "0-1"):
        assert command("run", config, "--out", out, "--seeds", seeds).exit_code == 0
    assert "older plan" not in caplog.text
    (manifest,) = read_manifests(out)
    assert len(manifest.runs) == 3
    assert manifest.config["seeds"] == [0, 1, 2]
    assert "small: 3 runs" in command("status", out).stdout


def test_another_plan_of_the_same_name_replaces_the_older_one_and_says_so(tmp_path, caplog):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    for steps in (60, 30):
        assert command("run", config, "--out", out, "--set", f"budget.steps={steps}").exit_code == 0
    assert "1 of the older plan's runs of experiment 'small' stay in the folder" in caplog.text
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
    with pytest.raises(RecordError, match="records are missing"):
        read_run(path.parent)


def test_a_place_that_is_no_results_folder_is_named_for_what_it_is(tmp_path):
    out = tmp_path / "runs"
    run_one(experiment(tmp_path, "fixed").specs[0], out)
    (run,) = (path.parent for path in out.glob("*/spec.json"))
    (tmp_path / "empty").mkdir()
    places = {
        run: "this is the folder of one run", tmp_path / "none": "no such folder", tmp_path / "small.yaml": "not a folder",
        tmp_path / "empty": "no experiment has been run", out: "holds runs but no list of them, experiments/NAME.json",
    }  # fmt: skip
    for place, words in places.items():
        with pytest.raises(RecordError, match=words):
            experiments_in(place)


def test_a_spec_that_was_changed_by_hand_is_one_line(tmp_path):
    run_one(experiment(tmp_path, "fixed").specs[0], tmp_path)
    (path,) = tmp_path.glob("*/spec.json")
    path.write_text(path.read_text().replace('"amount": 60', '"amount": 61'))
    with pytest.raises(RecordError, match=r"spec\.json:1:1: changed since the run was made: .*; remove .* to run it again"):
        read_run(path.parent)


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
    "run": "Missing argument 'CONFIG...'; `oho-bench run --help` shows",
    "run x.yaml --bogus": "No such option: --bogus",
    "run x.yaml --seeds": "Option '--seeds' requires an argument",
    "audit x --steps many": "Invalid value for '--steps'",
    "frobnicate": "No such command 'frobnicate'; `oho-bench --help` shows what is allowed",
    "data frobnicate": "No such command 'frobnicate'; `oho-bench data --help` shows what is allowed",
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
