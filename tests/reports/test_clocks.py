"""Seconds of unlike devices or engines are not drawn beside each other, unless that is asked for."""

import pytest
from faults import command, the_line
from made_up_runs import ENVIRONMENT, evaluation, incumbent, spec_of, write_run

from bench.records import Manifest, ReportError, write_manifest
from reports import style
from reports.api import build_figure
from reports.clocks import mixed_experiments, unlike_clocks
from reports.document import content_of
from reports.front import tables_of
from reports.tables import read_tables

H100 = {"device_name": "NVIDIA H100", "driver": "550.54", "node": "aaaa1111"}
CPU = {"device_name": "AMD EPYC, 2 logical cores", "node": "cccc3333"}


def write(root, *places, unit="seconds", figures=("distribution", "performance")):
    """A folder with runs of two methods; the seeds by turns at the places, each an environment with its calibrations."""
    ids = []
    for seed in range(4):
        for name in ("oho-global", "fixed"):
            spec = spec_of(name, seed)
            spec["budget"] = {"unit": unit, "amount": 2.0}
            *parts, probes = places[seed % len(places)]
            spec["device"] = "cuda" if "driver" in parts[0] else "cpu"
            records = [incumbent(0, 0.9), evaluation(0, 0.9), incumbent(100, 0.1 * seed + 0.2), evaluation(100, 0.3)]
            environment = {**ENVIRONMENT, **parts[0]}
            ids.append(write_run(root, spec, records, environment=environment, conditions={"probe_seconds": probes}))
    write_manifest(root, Manifest("two", tuple(figures), {}, tuple(ids)))
    return root


def unlike(root, **options):
    return unlike_clocks(read_tables(root).runs, **options)


ALIKE = {
    "one node, however loaded": [(CPU, [0.014, 0.015]), (CPU, [0.09, 0.05])],
    "two nodes of one speed": [(CPU, [0.014, 0.05]), ({**CPU, "node": "dddd4444"}, [0.019, 0.0185])],
    "a driver that was not told": [(H100, [0.001, None]), ({**H100, "driver": None}, [0.001, 0.001])],
    "no calibration": [(CPU, [0.014, 0.014]), ({**CPU, "node": "dddd4444"}, [None, None])],
    "older runs, without a node": [({"device_name": "one"}, None), ({"device_name": "another"}, None)],
    "older and newer runs": [({"device_name": "one"}, None), (H100, [0.001, 0.001])],
    "damaged readings": [(CPU, "fast"), ({**CPU, "node": "dddd4444"}, [{}, -1.0, 1e300, "0.1"])],
}
UNLIKE = {
    "devices": ([(H100, [0.001, 0.001]), (CPU, [0.014, 0.014])], "devices",
                "4 runs on AMD EPYC, 2 logical cores and 4 runs on NVIDIA H100, driver 550.54"),
    "drivers": ([(H100, [0.001, 0.001]), ({**H100, "driver": "535.1"}, [0.001, 0.001])], "devices",
                "4 runs on NVIDIA H100, driver 535.1 and 4 runs on NVIDIA H100, driver 550.54"),
    "speeds": ([(CPU, [0.014, 0.02]), ({**CPU, "node": "dddd4444"}, [0.03, 0.022])], "devices",
               "4 runs on AMD EPYC, 2 logical cores, calibrated at 14 ms and "
               "4 runs on AMD EPYC, 2 logical cores, calibrated at 22 ms"),
    "engines": ([(H100, [0.001, 0.001]), ({**H100, "engine": "graph"}, [0.001, 0.001])], "engines",
                "4 runs with eager and 4 runs with graph"),
    "precision": ([({**H100, "numerics": {"cudnn_benchmark": False, "float32_matmul_precision": each}}, [0.001, 0.001])
                   for each in ("ieee", "tf32")], "settings of precision",
                  "4 runs with cudnn_benchmark False, float32_matmul_precision ieee and "
                  "4 runs with cudnn_benchmark False, float32_matmul_precision tf32"),
}  # fmt: skip


@pytest.mark.parametrize("places", ALIKE.values(), ids=ALIKE)
def test_like_devices_compare(places, tmp_path):
    assert unlike(write(tmp_path, *places), in_seconds=True) is None


@pytest.mark.parametrize(("places", "kind", "said"), UNLIKE.values(), ids=UNLIKE)
def test_what_is_unlike_is_named_with_its_runs(places, kind, said, tmp_path):
    assert unlike(write(tmp_path, *places)) == (kind, said)


def test_a_budget_in_steps_compares_losses_but_no_seconds(tmp_path):
    root = write(tmp_path / "runs", *UNLIKE["devices"][0], unit="steps")
    assert unlike(root) is None is not unlike(root, in_seconds=True)
    assert mixed_experiments(read_tables(root).runs) == []
    build_figure("distribution", root, tmp_path / "distribution.pdf")
    with pytest.raises(ReportError, match="whose seconds cannot be compared"):
        build_figure("performance", root, tmp_path / "performance.pdf")


def test_plain_steps_are_eager_whatever_the_device(tmp_path):
    root = write(tmp_path / "devices", *UNLIKE["devices"][0], unit="plain_steps")
    assert unlike(root) is None
    root = write(tmp_path / "engines", *UNLIKE["engines"][0], unit="plain_steps")
    assert unlike(root).kind == "engines"


def test_no_timed_ranking_is_written_of_two_engines(tmp_path):
    places, _, said = UNLIKE["engines"]
    (table,) = tables_of(read_tables(write(tmp_path, *places)))
    assert {row[2] for row in table.rows} == {"not valid"}
    why = f"the runs were made by unlike engines ({said}), whose seconds cannot be compared."
    assert f"Not valid on digits-mlp: {why}" in table.notes


def test_a_figure_that_is_not_drawn_says_why(tmp_path):
    places, _, said = UNLIKE["devices"]
    root = write(tmp_path / "runs", *places)
    answer = command("figure", "distribution", root, "-o", tmp_path / "figure.pdf")
    assert the_line(answer, 2) == (
        f"oho-bench: distribution: Its runs took place on unlike devices ({said}), whose seconds cannot be compared, so it "
        "is not drawn; --allow-mixed draws it all the same."
    )
    assert not list(tmp_path.glob("figure*"))


def test_a_report_of_unlike_devices_says_so_wherever_it_compares_seconds(tmp_path, monkeypatch):
    places, _, said = UNLIKE["speeds"]
    root = write(tmp_path / "runs", *places, figures=["anytime", "distribution"])
    stamps = []

    def rendered(figure):
        stamps.append(" ".join(figure.get_supxlabel().split()))
        return style.rendered(figure)

    monkeypatch.setattr("reports.api.rendered", rendered)
    answer = command("report", root, "-o", tmp_path / "report.pdf", "--allow-mixed")
    assert answer.exit_code == 0, answer.stderr
    assert len(stamps) == 2
    assert all(stamp.endswith(f"a run; seconds of unlike devices: {said}") for stamp in stamps)
    page = (tmp_path / "report.html").read_text()
    assert f"Experiment two gave no equal budgets: its runs took place on unlike devices ({said})." in page
    assert f"Its seconds are of unlike devices: {said}." in page
    content = content_of(read_tables(root), [])
    assert content["comparisons"] == []
    assert f"two: seconds of unlike devices cannot be compared: {said}" in content["problems"]
