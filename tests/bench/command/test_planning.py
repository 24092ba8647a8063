"""The list of an experiment's runs."""

from helpers import experiment

from bench.command.planning import plan, write_plan
from bench.records import read_manifests


def test_a_changed_label_is_no_new_run_and_is_in_the_plan(tmp_path, caplog):
    """Nor does it lose the seeds that were asked for before."""
    first = experiment(tmp_path, "fixed", overrides=["seeds=0-2", "methods.0.label=Before"])
    again = experiment(tmp_path, "fixed", overrides=["methods.0.label=After"])
    write_plan(first, tmp_path)
    write_plan(again, tmp_path)
    (manifest,) = read_manifests(tmp_path)
    assert manifest.config["methods"][0]["label"] == "After"
    assert manifest.config["seeds"] == [0, 1, 2]
    assert manifest.runs == tuple(item.id for item in plan([first], tmp_path))
    assert not caplog.messages
