"""Imports matplotlib as it is installed, without what the user's own files and variables would change.

matplotlib reads `matplotlibrc` of the working folder and of the user when it is imported, and the user's styles with
`pyplot`.  A mistake there would be an error here, and a setting would change the bytes of every figure.
"""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_package = find_spec("matplotlib")
assert _package is not None
assert _package.origin is not None
with contextlib.chdir(Path(_package.origin).parent / "mpl-data"):  # its `matplotlibrc` is the first one found
    import matplotlib

_get_folder = matplotlib.get_configdir
matplotlib.get_configdir = matplotlib.get_data_path  # where `pyplot` looks for styles
try:
    import matplotlib.pyplot
finally:
    matplotlib.get_configdir = _get_folder

DEFAULTS: dict[Any, Any] = {
    name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")
}
"""All of matplotlib's settings; also where another module imported it first, with the user's."""
matplotlib.use("Agg")
