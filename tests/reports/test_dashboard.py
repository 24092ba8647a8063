"""Dashboards: which sections they have, what is previewed, and the JSON that W&B's own package has to read."""

import json
import re
import sys
from pathlib import Path

import pytest
from made_up_runs import LOSSES, evaluation, incumbent, spec_of, write_curves, write_folder, write_run
from typer.testing import CliRunner

from bench.cli import app
from bench.records import Manifest, ReportError, Status, read_run, write_manifest
from bench.tracking.transcripts import transcripts
from reports.dashboard import api
from reports.dashboard.plan import dashboards
from reports.dashboard.summaries import best_by_budget, recommendation
from reports.looks import assigned
from reports.tables import read_tables

GOLDEN = Path(__file__).parent / "golden" / "dashboard.json"
HOSTILE = "</script><b>x | \"y\""
SECTIONS = [
    "Overview", "Any time", "Distributions", "Hyperparameters", "Resiliency", "Influence", "Cost",
    "Runs that failed or were disturbed",
]  # fmt: skip


def trained(name, seed, losses, *, rates, shock=False, scalars=None):
    spec, records = spec_of(name, seed), [{**evaluation(0, 2.0), "hyper": {"lr": rates[0]}}]
    if shock:
        spec["shock"] = {"label": "lr set to 0.2 at epoch 3", "events": [{"epoch": 3.0, "set": {"lr": 0.2}}]}
    for step, (loss, rate) in enumerate(zip(losses, rates, strict=True), 1):
        records += [incumbent(100 * step, loss), {**evaluation(100 * step, loss), "hyper": {"lr": rate}}]
        records[-1]["scalars"] = scalars or {}
    return spec, records


def write_everything(root):
    """An experiment whose runs have something for each section."""
    ids = [
        write_run(root, *trained("fixed", 0, [0.9, 0.5], rates=[[0.1], [0.1]])),
        write_run(root, *trained("fixed", 1, [0.8, 0.3], rates=[[0.3], [0.2]])),
        write_run(root, *trained("fixed", 0, [0.9, 0.7], rates=[[0.1], [0.1]], shock=True)),
        write_run(root, *trained("oho-full", 0, [0.4, 0.2], rates=[[0.1, 0.2]] * 2, scalars={"influence_norm_lr": 2.0})),
        write_run(root, *trained("oho-layerwise", 0, [0.4, 0.1], rates=[list(map(float, range(1, 12)))] * 2)),
    ]
    hostile = spec_of("cosine", 3)
    hostile["method"]["label"] = HOSTILE
    ids.append(write_run(root, hostile, [evaluation(1, 0.001)], status=Status.FAILED))
    write_manifest(root, Manifest("everything", (), {}, tuple(ids), project="test"))
    return root


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return write_everything(tmp_path_factory.mktemp("everything"))


def command(*arguments):
    return CliRunner().invoke(app, ["dashboard", *map(str, arguments)])


def found(root):
    (only,) = dashboards(read_tables(root))
    return only


def test_an_experiment_has_the_sections_it_has_data_for(everything, tmp_path):
    assert [section.name for section in found(everything).sections] == SECTIONS
    write_folder(tmp_path, {("fixed", None): [[0.9, 0.5]]})
    assert [section.name for section in found(tmp_path).sections] == ["Overview", "Any time", "Hyperparameters", "Cost"]


def test_tasks_have_dashboards_of_their_own(tmp_path):
    ids = [write_run(tmp_path, spec_of("fixed", 0, task=task), [evaluation(1, 0.5)]) for task in ("digits-mlp", "other")]
    write_manifest(tmp_path, Manifest("two", (), {}, tuple(ids)))
    assert [(each.title, each.task) for each in dashboards(read_tables(tmp_path))] == [
        ("two, digits-mlp", "digits-mlp"), ("two, other", "other"),
    ]  # fmt: skip


def test_methods_have_colours_and_order_of_our_figures(tmp_path):
    write_folder(tmp_path, LOSSES)
    tables = read_tables(tmp_path)
    looks = assigned(tables.methods)
    (dashboard,) = dashboards(tables)
    assert [group.label for group in dashboard.groups] == [method.label for method in tables.methods]
    assert all(group.colour == looks[group.label].colour for group in dashboard.groups)


def test_what_to_use_is_read_off_the_records(tmp_path):
    write_folder(tmp_path, LOSSES)
    tables = read_tables(tmp_path)
    table = recommendation(tables.runs, [method.label for method in tables.methods]).table
    assert table.rows[0] == ("Global OHO", "online", "3", "0.15", "0.1 to 0.2")
    best = best_by_budget(tables.runs, tables.incumbents).table
    assert best.rows[0] == ("0.2 counted seconds", "–", "–")  # the first model is found after 1 second
    assert best.rows[2] == ("2 counted seconds", "Global OHO", "0.15")


def test_an_untrained_model_is_never_recommended(tmp_path):
    def ended(name, loss, step):
        last = {**evaluation(100, loss), "selected_step": step}
        return write_run(tmp_path, spec_of(name, 0), [incumbent(step, loss), last])

    def written(*ids):
        write_manifest(tmp_path, Manifest("one", (), {}, ids))
        tables = read_tables(tmp_path)
        return recommendation(tables.runs, [method.label for method in tables.methods])

    untrained, trained = ended("fixed", 0.1, 0), ended("cosine", 0.2, 100)
    both = written(untrained, trained)
    assert [row[0] for row in both.table.rows] == ["Cosine", "Fixed"]
    assert both.sentence.endswith("With Fixed more than half of the runs return the untrained model.")
    assert written(untrained).sentence == "No method selected a trained model within the budget."


def test_methods_that_all_have_many_sets_are_shown(tmp_path):
    spec, records = trained("oho-full", 0, [0.4], rates=[[0.1] * 12])
    write_manifest(tmp_path, Manifest("many", (), {}, (write_run(tmp_path, spec, records),)))
    titles = [panel.title for section in found(tmp_path).sections for panel in section.panels]
    assert "Learning rate, median of more than 8 sets" in titles


def test_runs_that_ended_badly_are_listed(everything):
    panel = found(everything).sections[-1].panels[0]
    assert panel.sentence == "1 run of 6 failed, diverged or had a disturbed clock."
    assert panel.table.rows[0][:4] == (HOSTILE, "3", "failed", "ValueError: broken")


def test_of_runs_with_a_shock_the_colour_is_a_tint(everything):
    colours = {group.label: group.colour for group in found(everything).groups}
    plain, tint = colours["Fixed"], colours["Fixed; lr set to 0.2 at epoch 3"]
    assert plain == assigned(read_tables(everything).methods)["Fixed"].colour
    assert plain < tint  # in each of its parts, so in the first one


# ---- the preview


def charts_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


@pytest.fixture(scope="module")
def previewed(everything, tmp_path_factory):
    output = tmp_path_factory.mktemp("preview") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb_workspaces", None)  # it takes no package that only W&B's users have
        answer = command(everything, "--preview", output)
    assert answer.exit_code == 0, answer.output
    return output.read_text(encoding="utf-8")


def test_the_preview_needs_nothing_from_elsewhere(previewed):
    own = previewed.replace(re.search(r"<script>(/\*\*.*?)</script>", previewed, re.S)[1], "")
    assert not re.search(r"""(?:src|href)=|https?://|url\(""", own)
    assert "default-src 'none'" in own
    assert HOSTILE not in previewed
    assert "&lt;/script&gt;&lt;b&gt;x | &quot;y&quot;" in own


def test_the_preview_draws_every_panel(previewed, everything):
    charts = charts_of(previewed)
    panels = [panel for section in found(everything).sections for panel in section.panels]
    assert re.findall(r'data-chart="(.*?)"', previewed) == list(charts)
    assert [chart["layout"]["title"]["text"] for chart in charts.values()] == [
        panel.title for panel in panels if not hasattr(panel, "table")
    ]
    assert all(chart["data"] for chart in charts.values())
    assert re.findall(r"<summary>(.*?)</summary>", previewed) == SECTIONS


def test_lines_are_medians_over_runs_with_their_range(previewed):
    title = "Test loss of the selected model against counted seconds"
    chart = next(chart for chart in charts_of(previewed).values() if chart["layout"]["title"]["text"] == title)
    low, high, middle = chart["data"][:3]
    assert middle["name"] == "Fixed"
    assert [part["y"][-1] for part in (low, middle, high)] == [0.3, 0.4, 0.5]
    assert middle["x"][0] == 0.0
    assert middle["x"][-1] == 2.0


def test_of_more_sets_than_have_metrics_the_median_is_drawn(previewed):
    titles = {chart["layout"]["title"]["text"]: chart for chart in charts_of(previewed).values()}
    by_set = titles["Learning rate by set"]["data"]
    assert [(trace["name"], trace["y"][-1]) for trace in by_set] == [
        ("Full OHO, set 0", 0.1), ("Full OHO, set 1", 0.2),
    ]  # fmt: skip
    (median,) = titles["Learning rate, median of more than 8 sets"]["data"]
    assert median["y"][-1] == 6.0


# ---- what W&B would get


@pytest.fixture(scope="module")
def written(everything, tmp_path_factory):
    output = tmp_path_factory.mktemp("views") / "dashboard.json"
    answer = command(everything, "--json", output, "--entity", "someone")
    assert answer.exit_code == 0, answer.output
    return output


@pytest.fixture(scope="module")
def views(written):
    return json.loads(written.read_text(encoding="utf-8"))


def test_json_is_that_of_the_golden_file(written):
    """After a change that is meant, copy the new file over the golden one."""
    assert written.read_text(encoding="utf-8") == GOLDEN.read_text(encoding="utf-8"), f"differs from {written}"


def test_json_loads_back_through_the_packages_own_models(views):
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces.reports.v2 import internal as report_models
    from wandb_workspaces.workspaces import Workspace
    from wandb_workspaces.workspaces import internal as workspace_models

    (view,) = views["workspaces"]
    loaded = Workspace._from_model(workspace_models.View.model_validate(view))
    assert [section.name for section in loaded.sections] == SECTIONS
    assert not any(type(panel).__name__ == "UnknownPanel" for section in loaded.sections for panel in section.panels)
    assert loaded.runset_settings.group_colors.keys() == {
        "Fixed", "Fixed; lr set to 0.2 at epoch 3", "Full OHO", "Layer-wise OHO", HOSTILE,
    }  # fmt: skip
    again = loaded._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    assert again == view
    report = wr.Report._from_model(report_models.ReportViewspec.model_validate(views["report"]))
    assert not any(type(block).__name__ == "UnknownBlock" for block in report.blocks)
    grid = next(block for block in report.blocks if isinstance(block, wr.PanelGrid))
    assert [runset.name for runset in grid.runsets] == ["training", "online"]


def test_every_panel_shows_what_runs_log(everything, views):
    """Metrics, keys of the summary and keys of the configuration, as the sink writes them of the same runs."""
    runs = [read_run(path.parent) for path in everything.glob("*/spec.json")]
    logged = [each for run in runs for each in transcripts(run, experiment="everything")]
    known = {key for each in logged for row in (*each.rows, each.summary) for key in row}
    known |= {f"summary:{key}" for key in known} | {f"config:{key}.value" for each in logged for key in each.config}
    for section in panel_sections(views):
        for config in (panel["config"] for panel in section["panels"] if panel["viewType"] != "Markdown Panel"):
            axes = {config[name] for name in ("xAxis", "yAxis") if name in config}
            assert {*axes, *config.get("metrics", ())} <= known
            assert config.get("groupBy", "label.value") == "label.value"


def panel_sections(views):
    return views["workspaces"][0]["spec"]["section"]["panelBankConfig"]["sections"]


def test_no_two_ids_are_alike(views):
    ids = re.findall(r'"(?:__id__|id)": "(\w+)"', json.dumps(views))
    assert len(ids) == len(set(ids))


def test_views_are_those_of_the_tracked_project_unless_another_is_named(everything, views, tmp_path):
    assert views["workspaces"][0]["project"] == "test"
    assert api.views(everything, entity=None, project="other")["report"]["project"]["name"] == "other"
    write_curves(tmp_path, "first", [("fixed", {}, 0, None, [(1, 0.5, 0.1)], {})])
    identity = write_run(tmp_path, spec_of("adam", 0), [evaluation(1, 0.5)])
    write_manifest(tmp_path, Manifest("second", (), {}, (identity,), project="elsewhere"))
    with pytest.raises(ReportError, match="in the projects elsewhere, oho-bench; choose one with --project"):
        api.views(tmp_path, entity=None, project=None)


def test_labels_mean_nothing_to_markdown(views):
    trouble = panel_sections(views)[-1]["panels"][0]
    assert "\\<b\\>x \\| \"y\"" in trouble["config"]["value"]


def test_names_of_views_have_no_symbols_and_filters_every_sign(tmp_path):
    from reports.dashboard.wandb_views import workspace

    task = """it's "a" = b <+> ★"""
    ids = [write_run(tmp_path, spec_of("fixed", 0, task=name), [evaluation(1, 0.5)]) for name in (task, "other")]
    write_manifest(tmp_path, Manifest("signs", (), {}, tuple(ids)))
    made = workspace(dashboards(read_tables(tmp_path))[0], entity="", project="p")
    assert made.name == """signs, it's "a" b"""
    filters = made._to_model().spec.section.run_sets[0].filters["filters"]
    assert [each["value"] for each in filters] == ["signs", task, "trial"]


# ---- mistakes


def test_without_the_package_one_line_names_the_extra(everything, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.delitem(sys.modules, "reports.dashboard.wandb_views", raising=False)
    answer = command(everything, "--json", tmp_path / "views.json")
    assert answer.exit_code == 2
    assert answer.stderr == f"oho-bench: {api.MISSING}\n"


@pytest.mark.parametrize("options", [(), ("--publish", "--json", "views.json")])
def test_one_way_to_make_it_has_to_be_chosen(everything, options):
    answer = command(everything, *options)
    assert answer.exit_code == 2
    assert answer.stderr == "oho-bench: dashboard: give one of --preview FILE, --json FILE and --publish\n"


def test_a_folder_without_measured_runs_has_no_dashboard(tmp_path):
    identity = write_run(tmp_path / "runs", spec_of("fixed", 0), [], status=Status.FAILED)
    write_manifest(tmp_path / "runs", Manifest("none", (), {}, (identity,)))
    answer = command(tmp_path / "runs", "--preview", tmp_path / "page.html")
    assert answer.exit_code == 2
    assert answer.stderr == "oho-bench: no run has been measured yet; there is nothing to show\n"
