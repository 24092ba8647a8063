"""Numbers in README and in the pages of `results/` are those of the records that are kept beside them."""

from pathlib import Path

import pytest
from quotes import complaints
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
QUOTED = sorted(ROOT.glob("results/*/quoted.yaml"))
ARCHIVES = sorted(ROOT.glob("results/*/records.tar.xz"))
REPORT = "Off by 0.14 (14%) or 0.5.\nNesterov | 8 | 0.239 | [0.229, 0.269]\nAdam needs 1,784 steps.\n"


def pages():
    for path in QUOTED:
        for page, quotes in YAML(typ="safe").load(path).items():
            yield pytest.param(ROOT / page, quotes, path.with_name("report.txt"), id=f"{path.parent.name}: {page}")


@pytest.mark.parametrize(("page", "quotes", "report"), pages())
def test_a_page_quotes_what_the_report_says(page, quotes, report):
    assert list(complaints(page.read_text(), quotes, report.read_text())) == []


@pytest.mark.slow
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.parent.name)
def test_an_archive_gives_the_report_that_is_quoted(archive, tmp_path):
    from reports.api import build_report

    kept = archive.parent
    built = build_report(kept, tmp_path / "report.pdf")
    assert built.failed == []
    assert (tmp_path / "report.txt").read_text() == (kept / "report.txt").read_text()
    tables = [path for path in built.files if path.suffix == ".csv" and (kept / path.name).exists()]
    assert [path.name for path in tables if path.read_text() != (kept / path.name).read_text()] == []


@pytest.mark.parametrize(("page", "quotes", "said"), [
    ("Nesterov is\nlowest, .24 [.23, .27].", {"lowest, .24 [.23, .27]": "Nesterov | … | 0.239 | [0.229, 0.269]"}, None),
    ("In `0.5` of [1.5](1.5.md)", {"of [1.5": None}, None),
    ("Adam needs 1,784", {"Adam needs 1,784": "Adam needs 1,784"}, None),
    ("From .239 to 1,784", {"From .239 to 1,784": ["0.239", "needs 1,784"]}, None),
    ("It is at .25.", {"at .25": "0.239"}, "quotes ['0.239']"),
    ("It is at .2390.", {"at .2390": "0.239"}, "quotes ['0.239']"),
    ("It is at .24.", {"at .24": "0.238"}, "the report does not say '0.238'"),
    ("Off by 14 % or 50 %", {"by 14 % or 50 %": "0.14 … 0.5"}, None),
    ("9 runs", {"9 runs": "Nesterov | 8"}, "quotes ['8']"),
    ("It is at .24.", {}, "no quote has the .24"),
    ("It is at .24.", {"lies at .24": "0.239"}, "stands 0 times"),
])  # fmt: skip
def test_a_quote_that_is_wrong_is_found(page, quotes, said):
    found = list(complaints(page, quotes, REPORT))
    assert found == [] if said is None else said in found[0]
