"""`oho-bench new`: a file that runs, and that leaves no key out."""

import re

import pytest
from faults import command, the_line

from bench.command.new_experiment import text_of
from bench.experiment.expansion import load_experiment
from bench.experiment.schema import ExperimentFields


def test_every_key_is_there_with_what_it_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = command("new", "study")
    assert answer.exit_code == 0
    assert "study.yaml is written" in answer.stdout
    assert "oho-bench run study.yaml --out runs/study" in answer.stdout
    text = (tmp_path / "study.yaml").read_text()
    for key, field in ExperimentFields.model_fields.items():
        assert field.description
        assert re.search(rf"^# [A-Z].*(\n# .*)*\n#?{key}:", text, re.MULTILINE), key


def test_it_runs_at_once_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command("new", "study")
    answer = command("run", "study.yaml", "--seeds", "0", "--set", "budget.steps=20", "--set", "tracking.mode=disabled")
    assert answer.exit_code == 0, answer.stderr
    assert "study: 4 runs: 4 budget reached" in command("status", "runs").stdout


def test_what_is_commented_out_can_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command("new", "study", "--task", "mnist-mlp")
    path = tmp_path / "study.yaml"
    assert all(spec["task"]["name"] == "mnist-mlp" for spec in load_experiment(path).specs)
    path.write_text(re.sub(r"^#(?! \S|plugins)", "", path.read_text(), flags=re.MULTILINE))
    assert len(load_experiment(path, overrides=["methods=[fixed]"]).specs) == 9


@pytest.mark.parametrize("name", ["2024", "1e5", "null", "true", "2024-01-31", "---"])
def test_a_name_that_yaml_takes_for_something_else_is_quoted(name, tmp_path):
    path = tmp_path / f"{name}.yaml"
    path.write_text(text_of(name, "digits-mlp"))
    assert load_experiment(path, overrides=["methods=[fixed]"]).name == name


MISTAKES = {
    "study": r"study\.yaml: the file already exists and was left unchanged; choose another name",
    "Study 1": r"Study 1: an experiment's name has at most 100 lower-case letters, digits and dashes",
    "nowhere/study": r"nowhere/study\.yaml: cannot be written \(No such file or directory\)",
    "other --task table": r"--task table: .*: task: \{name: table, path: \.\.\., target: \.\.\., kind: \.\.\.\}$",
    "other --task mnist": r"--task mnist: unknown; did you mean 'mnist-mlp'\? allowed: digits-mlp, ",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line_and_overwrites_nothing(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text("mine")
    name, *rest = [words] if words.startswith("Study") else words.split()
    line = the_line(command("new", name, *rest), 1 if "/" in words else 2)
    assert re.search(MISTAKES[words], line)
    assert [path.name for path in tmp_path.glob("*.yaml")] == ["study.yaml"]
    assert (tmp_path / "study.yaml").read_text() == "mine"
