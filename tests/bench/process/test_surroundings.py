"""Which of the user's variables count, and what a command says of those that cannot be used."""

import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT

from bench.process.surroundings import EXPECTED, HONOURED, PATTERNS, UnusableError, check, neutral

REMOVED = (
    "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_PROJECT", "WANDB_DIR", "WANDB__LABEL", "MPLBACKEND", "MATPLOTLIBRC",
    "TORCH_LOGS", "PYTORCH_CUDA_ALLOC_CONF", "NVIDIA_TF32_OVERRIDE", "CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG",
    "MKL_CBWR", "OMP_SCHEDULE", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONHASHSEED", "SOURCE_DATE_EPOCH", "GIT_DIR",
    "SCIPY_ARRAY_API", "TYPER_USE_RICH",
)  # fmt: skip
KEPT = (
    "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_X_FILE_STREAM_RETRY_MAX", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LC_ALL",
    "PYTHONIOENCODING", "GIT_CONFIG_GLOBAL", "MY_PLUGIN_DATA", "SLURM_JOB_ID",
)  # fmt: skip


def test_what_libraries_read_is_removed_unless_it_is_honoured_and_all_else_stays():
    given = dict.fromkeys((*REMOVED, *KEPT), "1")
    assert tuple(neutral(given)) == KEPT
    assert neutral({"PYTHONPATH": f":{ROOT}::/b"}) == {"PYTHONPATH": f"{ROOT}:/b"}


def test_the_page_lists_what_is_honoured():
    rows = re.findall(r"^\| (`[A-Z].*?) \| (.*) \|$", (ROOT / "docs/how-to/run.md").read_text(), flags=re.M)
    assert dict(rows) == {f"`{names.replace(', ', '`, `')}`": what for names, what in HONOURED.items()}
    assert set(EXPECTED) <= set(PATTERNS)


def test_a_command_starts_anew_without_what_python_has_read_already():
    """With assertions, docstrings and no warnings as errors; the variable of a plug-in is still there.

    What W&B's agent tells a trial is found under a name that W&B does not read.
    """
    show = "import os, sys; print(sys.flags.optimize, sys.warnoptions, main.__doc__ is None, os.environ['OWN'])"
    show += "; print(os.environ.get('WANDB_RUN_ID'), os.environ['OHO_WANDB_RUN_ID'])"
    program = f"from bench.process.surroundings import begin; begin()\ndef main(): 'Doc.'\n{show}"
    hostile = {"PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error", "WANDB_RUN_ID": "abc", "OWN": "kept"}
    given = {**os.environ, "PYTHONPATH": str(ROOT), **hostile}
    answer = subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, text=True)
    assert answer.stdout == "0 [] False kept\nNone abc\n", answer.stderr


@pytest.mark.parametrize(
    "locale", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_what_the_encoding_of_the_terminal_lacks_is_escaped_and_files_are_of_utf_8(locale, tmp_path):
    program = r"from bench.process.surroundings import begin; begin(); open('said', 'w').write('Fix\xe9'); print('Fix\xe9')"
    places = {**os.environ, "PYTHONPATH": str(ROOT), **locale}
    answer = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=places, capture_output=True, text=True)
    assert (answer.stdout, answer.stderr) == ("Fix\\xe9\n", "")
    assert (tmp_path / "said").read_bytes() == b"Fix\xc3\xa9"


@pytest.mark.parametrize(
    ("name", "value"),
    [("TMPDIR", "/nowhere"), ("OMP_NUM_THREADS", "many"), ("OMP_NUM_THREADS", "0"), ("WANDB_MODE", "dryrun"),
     ("WANDB_BASE_URL", "wandb.example.org"), ("OHO_NODE", "the one below my desk")],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_one_line(name, value):
    with pytest.raises(UnusableError, match=f"^the environment variable {name} is '{value}'; .* is expected$"):
        check({name: value})
    check({name: ""})


def test_usable_values_pass(tmp_path):
    check({"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "4,2", "WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:8"})


def test_a_removed_working_folder_is_one_line(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UnusableError, match="the working folder has been removed"):
        check({})
