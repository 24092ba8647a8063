"""The user's environment: the one list of what is honoured of it, and how a command begins without all else.

Libraries read hundreds of variables.  Those that would change a result, a figure or where runs are tracked are not the
experiment's, so they are removed before any library is imported; plug-ins still find variables of their own.
"""

from __future__ import annotations

import io
import locale
import os
import re
import sys
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from bench.process.signals import tell

HONOURED: Mapping[str, str] = {
    "OHO_DATA": "the folder of the data sets; `--root` takes precedence",
    "OHO_NODE": "what outcomes call this machine, instead of a hash: letters, digits and ._-",
    "HOME, XDG_*, TMPDIR": "the folders of settings, caches and temporary files",
    "MPLCONFIGDIR, TORCH_HOME, TORCHINDUCTOR_CACHE_DIR, TRITON_CACHE_DIR, CUDA_CACHE_PATH": "caches of libraries",
    "PATH, LD_*, CUDA_HOME, CUDA_PATH": "where programs and shared libraries are",
    "PYTHONPATH, PYTHONHOME, PYTHONUSERBASE, PYTHONNOUSERSITE, PYTHONSAFEPATH": (
        "where Python finds modules, such as your plug-ins; what it finds there first, it takes"
    ),
    "PYTHONUNBUFFERED, PYTHONFAULTHANDLER, PYTHONDONTWRITEBYTECODE, PYTHONPYCACHEPREFIX": "how Python writes",
    "LANG, LC_*, PYTHONIOENCODING, PYTHONUTF8, PYTHONCOERCECLOCALE": (
        "the terminal's encoding; what it cannot show is escaped. Files are always UTF-8"
    ),
    "TERM, COLORTERM, COLUMNS, LINES, NO_COLOR, FORCE_COLOR, TTY_*": "how the progress of `run` is shown",
    "CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER, CUDA_MPS_*": "the GPU that a command uses",
    "OMP_NUM_THREADS": "threads while a command prepares its runs; the runs have the file's `threads`",
    "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_*, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, NETRC": (
        "the way to the network"
    ),
    "WANDB_API_KEY, WANDB_BASE_URL, WANDB_ENTITY, WANDB_IDENTITY_TOKEN_FILE, WANDB_CREDENTIALS_FILE": (
        "who you are at W&B, and which server"
    ),
    "WANDB_MODE": "online, offline or disabled, if the file has no `tracking.mode`; `sync` always uploads",
    "WANDB_CONFIG_DIR, WANDB_CACHE_DIR": "W&B's folders, apart from runs, which are in the results folder",
    "WANDB_INSECURE_DISABLE_SSL, WANDB_X_GRAPHQL_*, WANDB_X_FILE_STREAM_*, WANDB_X_FILE_TRANSFER_*": (
        "how W&B connects, and how long it tries"
    ),
    "RAY_*": "how `--launcher ray` reaches its cluster",
    "SLURM_*, SBATCH_*, SUBMITIT_*": "how `--launcher slurm` reaches Slurm",
    "GIT_CONFIG*, GIT_EXEC_PATH": "how `git` is asked for the commit of the code",
}
"""Names, or patterns of names, and what they do."""
CLOSED = (
    "WANDB_", "TRACKIO_", "MPL", "MATPLOTLIB", "SEABORN_", "PLOTLY_", "TYPST_", "SOURCE_DATE_EPOCH",
    "TORCH", "PYTORCH_", "ATEN_", "AOT", "INDUCTOR_", "PT2_", "TRITON_", "KINETO_", "FBGEMM_", "PARTITIONER_",
    "CUDA_", "CUDNN_", "CUBLAS", "NVIDIA_TF32_OVERRIDE", "NCCL_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_",
    "BLIS_", "VECLIB_", "NUMEXPR_", "DNNL_", "ONEDNN_", "NPY_", "NUMPY_", "SCIPY_", "SKLEARN_", "SCIKIT_LEARN_", "JOBLIB_",
    "LOKY_", "OPTUNA_", "PANDAS_", "ARROW_", "SYMPY_", "NETWORKX_", "PYDANTIC_", "TYPER_", "_TYPER_", "_OHO_BENCH_",
    "TERMINAL_WIDTH", "RUAMEL_", "YAMLDEBUG", "TQDM_", "PROTOCOL_BUFFERS_", "PYTHON", "GIT_",
)  # fmt: skip
"""How the variables begin that Python, `git` and the suite's libraries read; those that are not honoured are removed."""
HANDED_ON: Mapping[str, str] = {
    "WANDB_RUN_ID": "OHO_WANDB_RUN_ID", "WANDB_SWEEP_ID": "OHO_WANDB_SWEEP_ID", "WANDB_PROJECT": "OHO_WANDB_PROJECT",
}  # fmt: skip
"""What `wandb agent` tells its trials, and the names under which `oho-bench agent`, but no library, finds it."""
PATTERNS = [pattern for names in HONOURED for pattern in names.split(", ")]
WANDB_MODES = ("online", "offline", "disabled")


class UnusableError(Exception):
    """An honoured variable with a value that cannot be used; the message is one line."""


def neutral(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment without variables that are not honoured.

    Empty places of PYTHONPATH, which stand for the working folder, are left out, as `:FOLDER` is hardly ever meant so.
    """
    kept = {name: value for name, value in environment.items() if not is_closed(name)}
    if "PYTHONPATH" in kept:
        kept["PYTHONPATH"] = os.pathsep.join(place for place in kept["PYTHONPATH"].split(os.pathsep) if place)
    return kept


def is_closed(name: str) -> bool:
    """Returns whether a variable is one that a library reads and that is not honoured."""
    return name.startswith(CLOSED) and not any(fnmatchcase(name, pattern) for pattern in PATTERNS)


def begin() -> None:
    """Starts this process anew if it has variables that are not honoured, because Python has read some of them already.

    So it does where the locale is not of UTF-8, because all files are; the terminal keeps its encoding.  Characters that it
    lacks are escaped from here on.  Exits with code 2 and one line if an honoured variable, or the working folder, cannot
    be used.
    """
    kept = neutral(os.environ) | {new: os.environ[old] for old, new in HANDED_ON.items() if old in os.environ}
    if not sys.flags.utf8_mode and locale.getencoding().lower() not in ("utf-8", "utf8"):
        kept = {"PYTHONIOENCODING": sys.stdout.encoding, **kept, "PYTHONUTF8": "1"}  # libraries write files, too
    if kept != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        check(kept)
    except UnusableError as error:
        tell(f"oho-bench: {error}")
        sys.exit(2)


def check(environment: Mapping[str, str]) -> None:
    """Raises `UnusableError` for the first value that cannot be used."""
    try:
        Path.cwd()
    except OSError:
        raise UnusableError("the working folder has been removed; change to another one") from None
    for name, (is_usable, expected) in EXPECTED.items():
        value = environment.get(name)
        if value and not is_usable(value):
            raise UnusableError(f"the environment variable {name} is {value!r}; {expected} is expected")


def _is_writable(folder: str) -> bool:
    return Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK)


EXPECTED: Mapping[str, tuple[Callable[[str], object], str]] = {
    "TMPDIR": (_is_writable, "a folder that can be written"),
    "OMP_NUM_THREADS": (re.compile(r"0*[1-9]\d{0,8}(,0*[1-9]\d{0,8})*").fullmatch, "a number of threads"),
    "OHO_NODE": (re.compile(r"[A-Za-z0-9._-]{1,40}").fullmatch, "a name of at most 40 letters, digits, dots, dashes and _"),
    "WANDB_MODE": (WANDB_MODES.__contains__, ", ".join(WANDB_MODES[:-1]) + f" or {WANDB_MODES[-1]}"),
    "WANDB_BASE_URL": (re.compile(r"https?://[^\s/]+.*").fullmatch, "an address that starts with http:// or https://"),
}
"""What is expected of the variables whose mistakes libraries report late, at length or not at all."""
