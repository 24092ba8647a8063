"""Shared by the tests of reports."""

import pytest

from reports import style

EVERY_FORMAT = style.FORMATS


@pytest.fixture(scope="session", autouse=True)
def quick_drawing():
    """Whole fonts, few dots, and the format alone that the report shows.

    To cut fonts down to the letters in use and to draw each figure three times takes most of a report's time: few tests do.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "FORMATS", {"svg": EVERY_FORMAT["svg"]})
        patch.setitem(style.SETTINGS, "pdf.fonttype", 3)
        patch.setitem(style.SETTINGS, "savefig.dpi", 50)
        yield


@pytest.fixture
def every_format(monkeypatch):
    """Figures are drawn in all their formats."""
    monkeypatch.setattr(style, "FORMATS", EVERY_FORMAT)
