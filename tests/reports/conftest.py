"""Shared by the tests of reports."""

import pytest

from reports import style


@pytest.fixture(scope="session", autouse=True)
def whole_fonts():
    """Cutting TrueType fonts down to the letters in use takes half of the time of a figure; one test asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(style.SETTINGS, "pdf.fonttype", 3)
        yield
