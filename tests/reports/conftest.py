"""Shared by the tests of reports."""

import pytest

from reports import style


@pytest.fixture(scope="session", autouse=True)
def quick_drawing():
    """Whole fonts and few dots: to cut fonts down to the letters in use takes half of a figure's time; one test does it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(style.SETTINGS, "pdf.fonttype", 3)
        patch.setitem(style.SETTINGS, "savefig.dpi", 50)
        yield
