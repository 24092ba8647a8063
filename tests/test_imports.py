"""Who may import what: the architecture as a test."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("oho", "bench", "baselines", "reports")
ALLOWED = {
    "oho": set(),
    "bench": {"oho"},
    "baselines": {"bench.protocol", "oho"},
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
FORBIDDEN_LIBRARIES = {place: {"torch", "torchvision", "wandb"} for place in ("reports", "bench/records", "bench/process")}
"""The libraries that no file in a folder may import."""

FILES = [path.relative_to(ROOT) for folder in OURS for path in sorted((ROOT / folder).rglob("*.py"))]


@cache
def imported(path):
    """The names that a file imports from elsewhere."""
    names = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
    return names


def room(name):
    """The room of `bench.room.module` or of `bench/room/module.py`."""
    return name.removesuffix(".py").replace("/", ".").split(".")[1]


def level(name):
    return next(number for number, rooms in enumerate(ROOMS) if name in rooms)


def refused(path, name):
    """Whether a file imports what its folder may not."""
    folder, top = path.parts[0], name.partition(".")[0]
    if any(top in libraries for place, libraries in FORBIDDEN_LIBRARIES.items() if path.is_relative_to(place)):
        return True
    allowed = any(name == a or name.startswith(f"{a}.") for a in ALLOWED[folder])
    return top in OURS and top != folder and not allowed


@pytest.mark.parametrize("folder", OURS)
def test_imports_only_what_its_folder_may(folder):
    files = [path for path in FILES if path.parts[0] == folder]
    assert [f"{path} imports {name}" for path in files for name in imported(path) if refused(path, name)] == []


def test_the_library_needs_torch_alone():
    known = {"torch", "oho", *sys.stdlib_module_names}
    needed = [(path, name) for path in FILES if path.parts[0] == "oho" for name in imported(path)]
    assert [f"{path} imports {name}" for path, name in needed if name.partition(".")[0] not in known] == []


def test_a_room_imports_only_from_rooms_below():
    """What `bench/__init__.py` offers users lies in the rooms."""
    wrong = []
    for path in FILES:
        if path.parts[0] == "bench" and path.as_posix() != "bench/__init__.py":
            own = room(path.as_posix())
            names = [name for name in imported(path) if name.startswith("bench.") and room(name) != own]
            wrong += [f"{path} imports {name}" for name in names if level(room(name)) <= level(own)]
    assert wrong == []
