"""The kit for a machine without network: wheels of what the suite needs besides torch, MNIST, and CIFAR-10.

`make gpu-kit` fills the folder; the script unpacks it.  This module imports nothing but Python's own library, because it is
there before all else.
"""

from __future__ import annotations

import gzip
import importlib
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from bench.command.node_task import hash_of_code

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "gpu-kit"
MOST_BYTES = 60 * 2**20
PYTHON = "3.12"
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64")
WHEELS = (
    "pydantic", "pydantic-core", "annotated-types", "typing-inspection", "ruamel.yaml", "orjson", "optuna", "alembic",
    "mako", "markupsafe", "sqlalchemy", "colorlog", "tqdm", "pyyaml", "cmaes", "scikit-optimize", "pyaml", "packaging",
    "prodigyopt", "pytorch-optimizer", "schedulefree",
)  # fmt: skip
"""What runs need besides torch, torchvision, pandas, SciPy, scikit-learn, seaborn, rich and typer."""
MNIST = Path("MNIST/raw")
CIFAR10 = "cifar10-jpeg.tar.xz"


def fill(folder: Path, data: Path) -> int:
    """Fills the folder from the package index and the data root, and returns the bytes that it has.

    Raises `SystemExit` with one line if something is missing, or if the folder has become too large.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    versions = [*(f"--platform={name}" for name in PLATFORMS), f"--python-version={PYTHON}", "--only-binary=:all:"]
    pinned = [_pinned(name) for name in WHEELS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *versions, "-d", folder / "wheels", *pinned]
    if subprocess.run(list(map(str, command))).returncode:
        raise SystemExit("make gpu-kit: the wheels cannot be downloaded; see what pip says above")
    for path in sorted((data / MNIST).glob("*-ubyte")):
        with gzip.GzipFile(folder / "data" / f"{path.name}.gz", "wb", compresslevel=4, mtime=0) as file:
            file.write(path.read_bytes())
    if len(list((folder / "data").glob("*.gz"))) != 4 or not (data / CIFAR10).exists():
        raise SystemExit(f"make gpu-kit: {data} lacks {MNIST} or {CIFAR10}; set OHO_DATA to a folder that has them")
    shutil.copyfile(data / CIFAR10, folder / "data" / CIFAR10)
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    (folder / "code.json").write_text(json.dumps({"commit": commit, "code": hash_of_code(str(ROOT))}), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise SystemExit(f"make gpu-kit: {folder} has {size / 2**20:.0f} MiB, and {MOST_BYTES / 2**20:.0f} are allowed")
    return size


def _pinned(name: str) -> str:
    """Returns the package in the version that constraints.txt names; pydantic's core has to be that of pydantic."""
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        found, equals, version = line.split(";")[0].strip().partition("==")
        if equals and found.lower().replace("_", "-") == name.lower().replace("_", "-"):
            return f"{name}=={version}"
    return name


def unpack(folder: Path) -> dict[str, str]:
    """Unpacks a kit beside itself, if that has not been done, and returns the environment in which it is found.

    Without a kit, the machine's own packages and data are used; with another Python than the kit is for, its data alone.
    """
    packages, data = folder / "unpacked" / "packages", folder / "unpacked" / "data"
    if not folder.exists():
        return {}
    if not (folder / "unpacked" / "done").exists():
        shutil.rmtree(folder / "unpacked", ignore_errors=True)
        for wheel in sorted((folder / "wheels").glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(packages)
        (data / MNIST).mkdir(parents=True)
        for path in (folder / "data").glob("*.gz"):
            (data / MNIST / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        shutil.copyfile(folder / "data" / CIFAR10, data / CIFAR10)
        _name_ourselves(packages)
        (folder / "unpacked" / "done").touch()
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON:
        return {"OHO_DATA": str(data)}
    if str(packages) not in sys.path:
        sys.path.append(str(packages))
        importlib.invalidate_caches()
    return {"PYTHONPATH": f"{ROOT}:{packages}", "OHO_DATA": str(data)}


def _name_ourselves(packages: Path) -> None:
    """Writes what an installation would, so that outcomes can name the suite's version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    folder = packages / f"oho_bench-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: oho-bench\nVersion: {version}\n", encoding="utf-8")


def commit_of_kit(folder: Path) -> str:
    """Returns the commit that the kit was made at and whether the code is still that one; nothing without a kit."""
    path = folder / "code.json"
    if not path.exists():
        return ""
    made = json.loads(path.read_text(encoding="utf-8"))
    return made["commit"] + ("" if made["code"] == hash_of_code(str(ROOT)) else " with changes")


if __name__ == "__main__":
    import os

    filled = fill(FOLDER, Path(os.environ.get("OHO_DATA") or ROOT / "data"))
    print(f"{FOLDER}: {filled / 2**20:.1f} MiB")
