"""The page beside the report: its data exactly, what it does in a browser."""

import base64
import gzip
import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from made_up_runs import LOSSES, evaluation, incumbent, spec_of, write_folder, write_run
from plotly.offline import get_plotlyjs

from bench.records import Manifest, ReportError, RunWriter, Status, write_manifest
from bench.records.archive import write_archive
from reports import page
from reports.api import build_report
from reports.figures import anytime
from reports.page import embedded
from reports.run_rows import LOG_ROWS, details, rounded, rows
from reports.tables import read_tables

HOSTILE = '</script><b>x & "y"'
MISSING = "0" * 16


def hostile_spec():
    spec = spec_of("cosine", 3)
    spec["method"]["label"] = HOSTILE
    return spec


def write_unfinished(root, spec, records):
    writer = RunWriter(root, spec)
    for record in records:
        writer.append(record)
    writer.close()
    return writer.id


def write_mixed(root):
    """Twelve measured runs, then one of each that something happened to; returns their ids."""
    ids = SimpleNamespace(
        measured=write_folder(root, LOSSES),
        failed=write_run(root, hostile_spec(), [evaluation(1, 0.001)], status=Status.FAILED),
        disturbed=write_run(
            root, spec_of("adam", 7), [incumbent(0, 2.34567), evaluation(1, None)], status=Status.DIVERGED,
            message="not finite", invalid_because=["it slept"], accounts={"train": 1.23456, "setup": 0.0},
        ),
        unfinished=write_unfinished(root, spec_of("step", 9), [evaluation(100, 0.5)]),
    )  # fmt: skip
    planned = (*ids.measured, ids.failed, ids.disturbed, ids.unfinished, MISSING)
    write_manifest(root, Manifest("both", ("anytime", "sets"), {}, planned))
    return ids


class Elements(HTMLParser):
    """What a browser finds in the page: elements with their attributes, and the text of each script."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, text):
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += text
        else:
            self.words.append(text)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Of a folder with all that can happen: ids of the runs, results folder, the page's path."""
    root = tmp_path_factory.mktemp("mixed")
    ids = write_mixed(root / "runs")
    _, written, *_ = build_report(root / "runs", root / "report.pdf").files
    return SimpleNamespace(ids=ids, results=root / "runs", page=written)


def test_the_table_has_a_row_for_each_planned_run(mixed):
    table = {row[-1]: row for row in rows(read_tables(mixed.results).runs)}
    assert list(table) == [
        *mixed.ids.measured, mixed.ids.failed, mixed.ids.disturbed, mixed.ids.unfinished, MISSING,
    ]  # fmt: skip
    first = mixed.ids.measured[0]
    budget = [2.0, "2 seconds"]
    assert table[first] == [
        "both", "digits-mlp", "Fixed", 0, "budget reached", budget, 0.5, 0.5, 10.0, 2.0, 100, 0, first,
    ]  # fmt: skip
    assert table[mixed.ids.failed][2:9] == [HOSTILE, 3, "failed", budget, None, None, None]
    assert table[mixed.ids.disturbed][3:5] == [7, "diverged (clock disturbed) (untrained model)"]
    assert table[mixed.ids.disturbed][9] == [2.0, "2 (disturbed)"]
    assert table[mixed.ids.unfinished][2:] == ["Step", 9, "not finished", budget, *[None] * 6, mixed.ids.unfinished]
    assert table[MISSING] == ["both", *[None] * 3, "missing", *[None] * 7, MISSING]
    assert all(type(table[first][index]) is int for index in (3, 10, 11))


def test_details_are_what_was_recorded(mixed):
    found = details(read_tables(mixed.results))
    assert found.keys() == {*mixed.ids.measured, mixed.ids.failed, mixed.ids.disturbed, mixed.ids.unfinished}
    disturbed = found[mixed.ids.disturbed]
    assert disturbed["spec"] == spec_of("adam", 7)
    assert disturbed["message"] == "not finite"
    assert disturbed["disturbed"] == ["it slept"]
    assert disturbed["accounts"] == {"train": 1.235, "setup": 0.0}
    assert found[mixed.ids.failed]["message"] == "Traceback\nValueError: broken"
    assert "accounts" not in found[mixed.ids.unfinished]
    assert found[mixed.ids.unfinished]["log"]["test loss"] == [0.5]


def log_of(root, records, **changes):
    """What opens of the log of a run with these records."""
    ended = write_run(root, spec_of("fixed", 0), records, **changes)
    write_manifest(root, Manifest("both", (), {}, (ended,)))
    return details(read_tables(root))[ended]["log"]


def test_a_log_has_the_columns_that_say_something(tmp_path):
    settings = {"lr": [0.123456], "weight_decay": [0.1, None, 0.2]}
    records = [{**evaluation(step, 1 / 3), "hyper": settings, "train_loss": None} for step in (100, 200)]
    assert log_of(tmp_path, records) == {
        "used (seconds)": [1.0, 2.0], "step": [100, 200], "epoch": [10.0, 20.0], "validation loss": [0.3333] * 2,
        "test loss": [0.3333] * 2, "test classification error (%)": [10.0] * 2,
        "validation loss, selected model": [0.3333] * 2, "test loss, selected model": [0.3333] * 2,
        "learning rate": [0.1235] * 2, "L2 coefficient": ["0.1 to 0.2 (3 sets)"] * 2,
    }  # fmt: skip


def test_a_long_log_is_thinned_from_end_to_end(tmp_path):
    records = [evaluation(step, 0.5) for step in range(5 * LOG_ROWS)]
    steps = log_of(tmp_path, records)["step"]
    assert (len(steps), steps[0], steps[-1]) == (LOG_ROWS, 0, 5 * LOG_ROWS - 1)


def test_a_run_without_evaluations_has_an_empty_log(tmp_path):
    assert log_of(tmp_path, [], status=Status.FAILED) == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.23456e-7, 1.235e-7), (123456, 123456), (123456.0, 123500.0), (np.inf, None), (np.nan, None), ("1.23456",) * 2],
)
def test_floats_have_four_digits(value, expected):
    assert rounded({"a": [value, (value, None, True)]}) == {"a": [expected, [expected, None, True]]}


def test_no_text_ends_its_script():
    text = embedded({"label": HOSTILE, "comment": "<!--"})
    assert not set(text) & set("<>&")
    assert json.loads(text) == {"label": HOSTILE, "comment": "<!--"}


def test_the_page_holds_its_data_and_loads_nothing(mixed):
    found = Elements(mixed.page.read_text(encoding="utf-8"))
    data = json.loads(found.scripts[0])
    assert [len(data[name]) for name in ("rows", "runs", "charts")] == [16, 15, 1]
    assert HOSTILE in {row[2] for row in data["rows"]}
    place = data["runs"][mixed.ids.failed]["spec"]["method"]
    assert data["parts"][place]["label"] == HOSTILE
    assert len(found.scripts) == 3
    assert gzip.decompress(base64.b64decode(found.scripts[1])).decode() == get_plotlyjs()
    assert data["records"] == "runs"
    assert (mixed.page.parent / data["records"] / mixed.ids.measured[0] / data["files"][0]).exists()
    addresses = [value for _, attributes in found.elements for name, value in attributes.items() if name in ("src", "href")]
    ids = {attributes["id"] for _, attributes in found.elements if "id" in attributes}
    assert addresses[:2] == ["#content", "report.pdf"]
    assert {address.removeprefix("#") for address in addresses if address != "report.pdf"} <= ids
    for name in ("page.html", "page.js", "charts.js"):
        own = Path(page.__file__).with_name(name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|url\(|\bimport\b|\bfetch\b", own)


def test_the_page_begins_as_the_report_does(mixed):
    words = " ".join("".join(Elements(mixed.page.read_text(encoding="utf-8")).words).split())
    assert "This report compares 13 runs of 5 methods on digits-mlp, 2 counted seconds each." in words
    assert "At 2 counted seconds Global OHO is lowest with 0.15" in words
    assert "Equal time: which method is best at which budget." in words
    assert "These runs test none of the paper's 11 claims." in words
    assert "13 of 16 planned runs were measured" in words


def test_an_archive_gives_the_same_bytes_but_for_links_to_records(mixed, tmp_path):
    write_archive(mixed.results, tmp_path / "records.tar.xz", limit=5)
    for path in build_report(tmp_path, tmp_path / "report.pdf").files:
        first = (mixed.page.parent / path.relative_to(tmp_path)).read_bytes()
        if path.suffix == ".html":
            first = first.replace(b'"records":"runs"', b'"records":null')
        assert path.read_bytes() == first, path.name


def test_a_chart_without_data_is_a_sentence(tmp_path):
    ids = write_folder(tmp_path / "runs", LOSSES)
    other = {**spec_of("fixed", 9), "budget": {"unit": "seconds", "amount": 7.0}}
    more = write_run(tmp_path / "runs", other, [incumbent(100, 0.1), evaluation(100, 0.1)])
    write_manifest(tmp_path / "runs", Manifest("both", ("anytime",), {}, (*ids, more)))
    _, written, *_ = build_report(tmp_path / "runs", tmp_path / "report.pdf").files
    text = written.read_text(encoding="utf-8")
    assert "differ in budget (2 or 7 counted seconds)" in text
    assert "data-chart=" not in text
    assert len(text) < 200_000  # without plotly.js


def test_a_page_that_cannot_be_written_is_told(tmp_path):
    write_folder(tmp_path / "runs", LOSSES)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ReportError, match=r"report\.html: cannot be written \(it is a folder\)"):
        build_report(tmp_path / "runs", tmp_path / "report.pdf")


def test_lines_of_anytime_are_its_estimates(mixed):
    estimates = anytime.estimate(read_tables(mixed.results))
    chart = anytime.interactive(estimates)
    lines = [trace for trace in chart.data if trace.showlegend is None]
    best_first = ["Global OHO", "Fixed", "Random search: Fixed", "Bayesian optimization: Adam", "Adam"]
    assert [trace.name for trace in lines] == best_first
    curve = estimates.curves[(estimates.curves["label"] == "Fixed") & np.isfinite(estimates.curves["median"])]
    assert lines[1].x == tuple(curve["used"])
    assert lines[1].y == tuple(curve["median"])
    assert lines[1].text[-1] == "median 0.4 (0.3, 0.5)"
    bands = [trace for trace in chart.data if trace.legendgroup == "Fixed" and trace.showlegend is False]
    assert [band.y[-1] for band in bands] == [0.3, 0.5]
    assert {trace.line.dash for trace in lines[:2]} == {"solid"}


@pytest.mark.parametrize(
    "losses", [{("fixed", None): [[0.5]]}, {("fixed", None): [[None], [0.4], [0.6]], ("oho-global", None): [[None]]}]
)
def test_thin_data_gives_a_chart(losses, tmp_path):
    write_folder(tmp_path, losses, spans_budget=True)
    chart = anytime.interactive(anytime.estimate(read_tables(tmp_path)))
    assert {trace.mode for trace in chart.data if trace.showlegend is None} == {"markers"}
    assert not any(trace.name == "Fixed" and trace.showlegend is False for trace in chart.data)


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium."""
    paths = [shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")]
    if None in paths:
        pytest.skip("needs chromium and chromedriver on the PATH")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium; `make setup`")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(paths[1]))
    yield driver
    driver.quit()


def column(browser, name):
    """The texts of a column of the table of runs, from top to bottom."""
    script = """
        const index = data.columns.findIndex((column) => column.name === arguments[0]);
        return [...document.querySelectorAll("tr.run")].map((row) => row.cells[index].textContent);
    """
    return browser.execute_script(script, name)


def wait_for_charts(browser):
    """The library is unpacked and run once the page is there."""
    end = time.monotonic() + 60
    while time.monotonic() < end and not browser.find_elements("css selector", ".legendtext"):
        time.sleep(0.1)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "is_below"), [(390, True), (1440, False)])
def test_the_page_fits_windows_narrow_and_wide(mixed, browser, width, is_below):
    """Nothing is cut off, and on a narrow one names stand below the chart."""
    window = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": is_below}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    browser.get(mixed.page.as_uri())
    wait_for_charts(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    plot, legend = (
        browser.execute_script(f"return document.querySelector('{part}').getBoundingClientRect().toJSON()")
        for part in (".cartesianlayer", ".legend")
    )
    assert (legend["top"] >= plot["bottom"]) == is_below
    assert browser.execute_script("return [...document.images].every((image) => image.naturalWidth > 0)")
    assert browser.execute_script("return document.querySelector('figure > .scroll').matches('.wide')") == is_below


@pytest.mark.browser
def test_the_page_in_a_browser(mixed, browser):
    browser.get(mixed.page.as_uri())
    wait_for_charts(browser)
    names = browser.execute_script("return [...document.querySelectorAll('.legendtext')].map((text) => text.textContent)")
    assert names[:2] == ["Global OHO", "Fixed"]
    lines = browser.execute_script("return document.querySelectorAll('.scatterlayer .trace path.js-line').length")
    assert lines >= len(names)

    before = column(browser, "incumbent_test_loss")
    header = browser.find_element("xpath", "//button[text()='Test loss']")
    header.click()
    known = [text for text in before if text != "—"]
    unknown = ["—"] * (len(before) - len(known))
    assert column(browser, "incumbent_test_loss") == [*sorted(known, key=float), *unknown] != before
    header.click()
    assert column(browser, "incumbent_test_loss") == [*sorted(known, key=float, reverse=True), *unknown]

    box = browser.find_element("id", "filter")
    box.send_keys("FAILED digits")
    assert column(browser, "run") == [mixed.ids.failed]
    assert column(browser, "label") == [HOSTILE]
    row = browser.find_element("css selector", "tr.run")
    row.click()
    assert json.loads(browser.find_element("css selector", "pre.spec").text) == hostile_spec()
    assert "ValueError: broken" in browser.find_element("css selector", "pre.message").text
    assert "0.001000" in browser.find_element("css selector", "table.log").text
    assert "wall time" in browser.find_element("css selector", "table.accounts").text
    row.find_element("tag name", "button").send_keys("\ue007")  # Enter
    assert not browser.find_elements("css selector", "pre.spec")

    box.clear()
    box.send_keys("missing")
    browser.find_element("css selector", "tr.run button").send_keys(" ")
    assert "has not been started" in browser.find_element("css selector", "td.detail").text
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
