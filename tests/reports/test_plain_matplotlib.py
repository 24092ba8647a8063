"""Figures have the same bytes whatever matplotlib would read of the user's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
from helpers import ROOT

from reports.style import figure_style, panels, rendered

RC = "lines.linewidth: 9\nfont.size: 22\naxes.facecolor: yellow\ntext.usetex: True\nsavefig.bbox: tight\n"


def drawn():
    with figure_style():
        figure, axes = panels(1, 1, height=1.0)
        axes.plot([1, 2], [3, 1], label="loss")
        axes.legend()
        return rendered(figure)


def test_settings_of_the_process_change_no_byte(tmp_path, every_format):
    expected = drawn()
    (tmp_path / "rc").write_text(RC)
    with matplotlib.rc_context(fname=tmp_path / "rc"):
        assert drawn() == expected
        assert matplotlib.rcParams["font.size"] == 22


def test_files_of_the_user_are_not_read(tmp_path):
    """Neither good ones nor one that is no text, which would be an error of the import."""
    (tmp_path / "config/stylelib").mkdir(parents=True)
    for place in ("matplotlibrc", "config/matplotlibrc"):
        (tmp_path / place).write_text(RC)
    (tmp_path / "config/stylelib/own.mplstyle").write_bytes(b"\xff\xfe")
    for cache in Path(matplotlib.get_cachedir()).glob("fontlist-*.json"):
        shutil.copy(cache, tmp_path / "config")  # to list all fonts takes seconds
    shown = "plt.rcParams['font.size'], plt.get_backend(), 'own' in plt.style.available"
    program = f"from reports.style import plt; print({shown})"
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLCONFIGDIR": str(tmp_path / "config")},
    )  # fmt: skip
    assert answer.stdout == "10.0 Agg False\n", answer.stderr
