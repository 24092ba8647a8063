"""Who may import what: the architecture as a test."""

import ast
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
EXCEPTIONS = {
    "bench/method_registry.py": {"baselines"},
    "bench/cli.py": {"reports"},
}
FORBIDDEN_LIBRARIES = {"reports": {"torch", "torchvision", "wandb"}, "oho": {"wandb", "numpy", "pandas", "torchvision"}}

FILES = [path.relative_to(ROOT) for folder in OURS for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_only_what_its_folder_may(path):
    folder = path.parts[0]
    allowed = ALLOWED[folder] | EXCEPTIONS.get(path.as_posix(), set())
    for name in imported(ROOT / path):
        top = name.partition(".")[0]
        assert top not in FORBIDDEN_LIBRARIES.get(folder, ()), f"{path} imports {name}"
        if top in OURS and top != folder:
            assert any(name == a or name.startswith(f"{a}.") for a in allowed), f"{path} imports {name}"
