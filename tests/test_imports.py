"""Who may import what: the architecture as a test."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("oho", "bench", "baselines", "reports")
ALLOWED = {
    "oho": set(),
    "bench": {"oho"},
    "baselines": {"bench.protocol", "oho.rules", "oho"},
    "reports": {"bench.records"},
}
ROOMS = [
    {"__main__"},
    {"cli", "measure"},
    {"command"},
    {"testing"},
    {"run"},
    {"tracking"},
    {"experiment"},
    {"tasks", "online"},
    {"protocol"},
    {"records", "process"},
]
"""The rooms of `bench`, from the top down: each imports only from rooms below its own."""
FORBIDDEN_LIBRARIES = {"reports": {"torch", "torchvision", "wandb"}}

FILES = [path.relative_to(ROOT) for folder in OURS for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def room(name):
    """The room of `bench.room.module` or of `bench/room/module.py`."""
    return name.removesuffix(".py").replace("/", ".").split(".")[1]


def level(name):
    return next(number for number, rooms in enumerate(ROOMS) if name in rooms)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_only_what_its_folder_may(path):
    folder = path.parts[0]
    for name in imported(ROOT / path):
        top = name.partition(".")[0]
        assert top not in FORBIDDEN_LIBRARIES.get(folder, ()), f"{path} imports {name}"
        if top in OURS and top != folder:
            assert any(name == a or name.startswith(f"{a}.") for a in ALLOWED[folder]), f"{path} imports {name}"


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "oho"], ids=str)
def test_the_library_needs_torch_alone(path):
    needed = {name.partition(".")[0] for name in imported(ROOT / path)} - sys.stdlib_module_names
    assert needed <= {"torch", "oho"}, f"{path} imports {needed}"


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "bench" and len(path.parts) > 1], ids=str)
def test_a_room_imports_only_from_rooms_below(path):
    if path.as_posix() == "bench/__init__.py":
        return  # what users import lies in the rooms
    own = room(path.as_posix())
    for name in imported(ROOT / path):
        if name.startswith("bench.") and room(name) != own:
            assert level(room(name)) > level(own), f"{path} imports {name}"
