"""`bench.results` and `oho-bench export`: a results folder as one table."""

import math
import subprocess
import sys

import pandas as pd
import pytest
from faults import command
from helpers import ROOT
from made_up_runs import LOSSES, evaluation, incumbent, spec_of, write_folder, write_run
from programs import printed_by

import bench
from bench.records import Manifest, RecordError, Status, write_manifest


def test_a_row_a_run(tmp_path):
    ids = write_folder(tmp_path, LOSSES)
    runs = bench.results(str(tmp_path))
    assert runs["run"].tolist() == ids
    first = runs.iloc[0]
    assert first[["experiment", "task", "method", "family", "label", "seed", "status"]].tolist() == [
        "both", "digits-mlp", "fixed", "training", "Fixed", 0, "budget_reached",
    ]  # fmt: skip
    assert first[["incumbent_test_loss", "counted_seconds", "seconds_train", "selected_step"]].tolist() == [0.5, 2, 2, 200]
    search = runs[runs["family"] == "search"].iloc[0]
    assert search[["over", "over_family", "over_label"]].tolist() == ["fixed", "training", "Fixed"]
    assert set(runs["loss_unit"]) == {"nats per example"}
    assert set(runs["metric"]) == {"classification error"}


def test_a_row_a_record_with_what_its_run_is(tmp_path):
    write_folder(tmp_path, LOSSES)
    records = bench.results(tmp_path, records=True)
    assert records["kind"].value_counts().to_dict() == {"evaluation": 27, "incumbent": 27}
    fixed = records[(records["label"] == "Fixed") & (records["seed"] == 0) & (records["kind"] == "evaluation")]
    assert fixed[["step", "test_loss", "hyper_lr"]].to_numpy().tolist() == [[100, 0.9, 0.1], [200, 0.5, 0.1]]
    assert list(records)[:3] == ["kind", "run", "experiment"]


def test_options_are_columns_and_what_has_not_ended_is_a_row(tmp_path):
    spec = spec_of("oho-global", 0)
    spec["method"] |= {"meta_rate": 1e-3, "optimizer": {"name": "momentum"}, "tune": ["lr"]}
    ended = write_run(tmp_path, spec, [evaluation(100, 0.5)], status=Status.FAILED)
    write_manifest(tmp_path, Manifest("both", (), {}, (ended, "0" * 16)))
    runs = bench.results(tmp_path).set_index("run")
    assert runs.loc[ended, ["option_meta_rate", "option_optimizer"]].tolist() == [1e-3, "momentum"]
    assert "option_tune" not in runs
    assert math.isnan(runs.loc[ended, "test_loss"])
    assert runs["status"].tolist() == ["failed", "missing"]


def test_methods_of_older_results_have_the_family_other(tmp_path):
    spec = spec_of("random-search", 0, "fixed")
    del spec["method"]["family"], spec["method"]["over"]["family"]
    ended = write_run(tmp_path, spec, [incumbent(100, 0.5), evaluation(100, 0.5)])
    write_manifest(tmp_path, Manifest("both", (), {}, (ended,)))
    assert bench.results(tmp_path)[["family", "over_family"]].iloc[0].tolist() == ["other", "other"]


def test_a_folder_without_experiments_is_told(tmp_path):
    with pytest.raises(RecordError, match="no experiment has been run into this folder"):
        bench.results(tmp_path)


def test_importing_bench_is_light():
    code = "import sys, bench; assert 'results' in dir(bench); sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_export_writes_what_results_returns(tmp_path):
    write_folder(tmp_path / "runs", LOSSES)
    answer = command("export", tmp_path / "runs", "-o", tmp_path / "table.csv")
    assert (answer.exit_code, answer.stdout.strip()) == (0, str(tmp_path / "table.csv"))
    assert pd.read_csv(tmp_path / "table.csv")["run"].tolist() == bench.results(tmp_path / "runs")["run"].tolist()


def test_export_as_parquet_takes_several_sets(tmp_path):
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow")
    from bench.records.table_files import write_table

    records = [{**evaluation(step, 0.5), "hyper": {"lr": rates}} for step, rates in ((1, [0.1]), (2, [0.1, 0.2]))]
    ended = write_run(tmp_path, spec_of("oho-full", 0), records)
    write_manifest(tmp_path, Manifest("both", (), {}, (ended,)))
    write_table(bench.results(tmp_path, records=True), tmp_path / "records.parquet")
    read = pd.read_parquet(tmp_path / "records.parquet")
    assert [list(rates) for rates in read["hyper_lr"]] == [[0.1], [0.1, 0.2]]


@pytest.mark.parametrize(("words", "told"), [
    (["RUNS", "-o", "table.txt"], "must end in .csv or .parquet"), (["NONE", "-o", "table.csv"], "no such folder"),
])  # fmt: skip
def test_mistakes_of_an_export_are_one_line(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "RUNS", {("fixed", None): [[0.5]]})
    answer = command("export", *words)
    assert answer.exit_code == 2
    assert answer.stderr.count("\n") == 1
    assert told in answer.stderr


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    write_folder(tmp_path / "runs/try", LOSSES)
    text = (ROOT / "docs/how-to/results-in-python.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    printed = printed_by(code)
    assert (tmp_path / "curves.png").exists()
    assert "Bayesian optimization: Adam" in printed
