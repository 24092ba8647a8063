"""Commands in environments that would change what their libraries do: the same records, tables and bytes, no traceback."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from faults import command, the_line, timeless
from helpers import ROOT, write_config
from made_up_runs import LOSSES, write_folder
from wandb_server import KEY, Server

from bench.records import read_outcome

WANDB = {
    "RUN_ID": "abc", "SWEEP_ID": "s1", "PROJECT": "leak", "NAME": "leak", "RUN_GROUP": "leak", "JOB_TYPE": "leak",
    "TAGS": "leak", "NOTES": "leak", "RESUME": "must", "DIR": "/nowhere", "DATA_DIR": "/nowhere", "DISABLED": "true",
    "CONSOLE": "nonsense", "IGNORE_GLOBS": "*", "SILENT": "false", "MODE": "disabled", "SWEEP_PARAM_PATH": "/nowhere",
}  # fmt: skip
VARIABLES = {
    "W&B": {f"WANDB_{name}": value for name, value in WANDB.items()},
    "matplotlib": {"MPLBACKEND": "nonsense", "MATPLOTLIBRC": "matplotlibrc", "SOURCE_DATE_EPOCH": "yesterday"},
    "threads": {"OPENBLAS_NUM_THREADS": "many", "MKL_NUM_THREADS": "-1", "OMP_SCHEDULE": "x", "OMP_PROC_BIND": "x",
                "GOMP_CPU_AFFINITY": "99", "KMP_AFFINITY": "x"},
    "arithmetic": {"ATEN_CPU_CAPABILITY": "default", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3", "MKL_CBWR": "COMPATIBLE",
                   "OPENBLAS_CORETYPE": "Prescott", "NVIDIA_TF32_OVERRIDE": "1"},
    "torch": {"TORCH_LOGS": "nonsense", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "PYTORCH_JIT": "0",
              "PYTORCH_ALLOC_CONF": "nonsense", "TORCHDYNAMO_DISABLE": "1"},
    "Python": {"PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error", "PYTHONHASHSEED": "7", "PYTHONDEVMODE": "1",
               "PYTHONINTMAXSTRDIGITS": "640"},
    "tables": {"PANDAS_COPY_ON_WRITE": "warn", "PANDAS_FUTURE_INFER_STRING": "0", "SCIPY_ARRAY_API": "1",
               "ARROW_DEFAULT_MEMORY_POOL": "nonsense", "JOBLIB_START_METHOD": "x", "SKLEARN_WORKING_MEMORY": "x"},
    "other libraries": {"PLOTLY_RENDERER": "nonsense", "TYPST_FONT_PATHS": "/", "TYPER_USE_RICH": "nonsense",
                        "PYDANTIC_DISABLE_PLUGINS": "x", "TQDM_MININTERVAL": "x", "YAMLDEBUG": "9",
                        "_OHO_BENCH_COMPLETE": "x"},
    "terminal": {"COLUMNS": "1", "LINES": "x", "TERM": "nonsense", "FORCE_COLOR": "1", "TZ": "Pacific/Kiritimati"},
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII": {"PYTHONIOENCODING": "ascii", "LANG": "xx_YY"},
    "git": {"GIT_DIR": "/nowhere", "GIT_WORK_TREE": "/", "GIT_TRACE": "1"},
    "no network": {"HTTPS_PROXY": "nonsense", "SSL_CERT_FILE": "/nowhere", "NETRC": "/nowhere"},
    "working folder": {"PYTHONPATH": f":{ROOT}"},
    "GPU": {"CUDA_VISIBLE_DEVICES": "nonsense", "CUDA_LAUNCH_BLOCKING": "1"},
    "no home": {"HOME": "/dev/null/none", "XDG_CACHE_HOME": "/proc", "MPLCONFIGDIR": "/proc/none",
                "WANDB_CACHE_DIR": "/proc/none", "WANDB_CONFIG_DIR": "/proc/none"},
}  # fmt: skip
ALL = {name: value for group in VARIABLES if group != "no home" for name, value in VARIABLES[group].items()}
LEAK = "[default]\nrun_id = abc\nsweep_id = s1\nproject = leak\nentity = leak\nmode = disabled\n"
FILES = {
    "matplotlibrc": "lines.linewidth: 9\ntext.usetex: True\naxes.facecolor: yellow\n",
    "wandb/settings": LEAK, "torch.py": "1 / 0", "matplotlib.py": "1 / 0", "pandas.py": "1 / 0",
}  # fmt: skip
"""Files of a working folder that libraries would read."""
HOME = {
    ".config/wandb/settings": LEAK.replace("entity = leak\n", ""), ".config/matplotlib/matplotlibrc": FILES["matplotlibrc"],
    ".config/matplotlib/stylelib/own.mplstyle": "nonsense",
}  # fmt: skip
USUAL = {"PYTHONPATH": str(ROOT), "OHO_DATA": "nowhere"}


@pytest.fixture
def hostile(tmp_path):
    """A working folder full of traps, and a home with more of them beside it."""
    for name, content in [*((f"hostile/{name}", text) for name, text in FILES.items()),
                          *((f"home/{name}", text) for name, text in HOME.items())]:  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path / "hostile"


def with_traps(folder, variables):
    """The variables, with the home beside the folder where they name none."""
    home = folder.parent / "home"
    return {"HOME": str(home), "WANDB_CONFIG_DIR": str(home / ".config/wandb"), **variables}


def told(folder, variables, *words):
    """What a command prints in its environment."""
    start = "import sys; sys.path.append(sys.argv.pop(1)); from bench.__main__ import main; main()"
    line = [sys.executable, "-P", "-c", start, str(ROOT), *map(str, words)]
    environment = {**os.environ, **USUAL, **variables}
    answer = subprocess.run(line, cwd=folder, env=environment, capture_output=True, timeout=200)
    assert answer.returncode == 0, answer.stderr
    assert b"Traceback" not in answer.stderr
    return answer.stdout


def configured(folder, *methods):
    path = write_config(folder, *methods)
    text = path.read_text().replace("mode: disabled", "mode: offline, project: mine")
    path.write_text(text.replace("steps: 60", "steps: 20"))
    return path


def wandb_files(out):
    return sorted(out.glob("*/wandb/*run-*/run-*.wandb"))


def results(out):
    """The records of each run and the commit that made it."""
    runs = [path.parent for path in out.glob("*/spec.json")]
    return {run.name: (timeless(run), read_outcome(run).environment["commit"]) for run in runs}


def test_a_command_in_the_worst_environment_says_the_same(tmp_path, hostile):
    write_folder(tmp_path / "runs", LOSSES)
    usual = command("status", tmp_path / "runs").stdout
    assert told(hostile, with_traps(hostile, ALL), "status", tmp_path / "runs").decode() == usual


@pytest.mark.skipif(torch.cuda.is_available(), reason="this process has begun to use the GPU")
def test_no_gpu_because_of_a_variable_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "nonsense")
    line = the_line(command("run", configured(tmp_path, "fixed"), "--device", "cuda", "--dry-run"), 2)
    assert "no usable GPU among those that CUDA_VISIBLE_DEVICES=nonsense leaves" in line


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """What every command makes in a usual environment, with the folder that has it."""
    folder = tmp_path_factory.mktemp("usual")
    config = configured(folder, "fixed", "oho-global")
    config.write_text(config.read_text().replace("{name: fixed}", '{name: fixed, label: "Fixé „ß“"}'))
    told(folder, {}, "run", config, "--out", folder / "runs")
    return folder, made(folder, folder, {})


def made(folder, place, variables):
    """Everything that commands print and write about the folder's runs, in a working folder and environment."""
    runs = folder / "runs"
    printed = [told(place, variables, *words) for words in (("status", runs), ("sync", runs, "--dry-run"))]
    told(place, variables, "report", runs, "-o", place / "out/report.pdf")
    told(place, variables, "figure", "distribution", runs, "-o", place / "out/one.pdf")
    told(place, variables, "export", runs, "-o", place / "out/runs.csv")
    files = {path.relative_to(place): path.read_bytes() for path in place.glob("out/**/*.*") if path.is_file()}
    return printed, files


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", [*VARIABLES, "all"])
def test_every_command_makes_the_same(group, usual, hostile, tmp_path):
    folder, (printed, files) = usual
    variables = with_traps(hostile, ALL if group == "all" else VARIABLES[group])
    told(hostile, variables, "run", folder / "small.yaml", "--out", tmp_path / "runs")
    assert results(tmp_path / "runs") == results(folder / "runs")
    files_of_wandb = wandb_files(tmp_path / "runs")
    assert len({path.name for path in files_of_wandb}) == 2
    assert b"leak" not in b"".join(path.read_bytes() for path in files_of_wandb)
    found = made(folder, hostile, variables)
    assert {name for name in files if files[name] != found[1].get(name)} == set()
    if not {"LC_ALL", "PYTHONIOENCODING"} & variables.keys():
        assert found[0] == printed
    server = Server()
    account = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.address}
    told(hostile, {**variables, **account}, "sync", tmp_path / "runs")
    assert Counter(told["project"] for told in server.told.values()) == {"mine": 2}
    assert len(server.told) == 2
    assert "leak" not in json.dumps(server.told)
    server.listener.shutdown()
