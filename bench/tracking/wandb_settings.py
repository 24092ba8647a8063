"""What W&B takes from the user's environment: who the user is and which server, and nothing that tells runs apart.

W&B reads variables, `~/.config/wandb/settings` and `wandb/settings` of the working folder.  Any of them may name a run, a
sweep, a project or a mode, and would override what the configuration says.
"""

from __future__ import annotations

import configparser
import os
import tempfile
from pathlib import Path
from typing import Any

from bench.process.surroundings import is_closed, neutral

HONOURED_KEYS = ("base_url", "entity")
"""The keys of the user's settings file that count; those of a working folder do not."""
PATIENCE = {
    "GRAPHQL_RETRY_MAX": 1, "GRAPHQL_RETRY_WAIT_MAX_SECONDS": 1, "GRAPHQL_TIMEOUT_SECONDS": 6, "FILE_STREAM_RETRY_MAX": 3,
    "FILE_STREAM_RETRY_WAIT_MAX_SECONDS": 2, "FILE_STREAM_TIMEOUT_SECONDS": 20, "FILE_TRANSFER_RETRY_MAX": 3,
}  # fmt: skip
"""Settings of `wandb sync`, which would otherwise retry for minutes; the user's environment takes precedence."""
ONLINE_PATIENCE = {
    "GRAPHQL_RETRY_MAX": 3, "GRAPHQL_RETRY_WAIT_MIN_SECONDS": 1, "GRAPHQL_RETRY_WAIT_MAX_SECONDS": 4,
    "GRAPHQL_TIMEOUT_SECONDS": 6,
}  # fmt: skip
"""Settings of runs that are online, which would otherwise be given up before W&B gives up and says why."""
ALWAYS = {"WANDB_ERROR_REPORTING": "false", "WANDB_SAGEMAKER_DISABLE": "true"}


def user_settings() -> dict[str, str]:
    """Returns the honoured keys of the user's settings file."""
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    found = _content(Path(os.path.expanduser(folder), "settings"))  # noqa: PTH111  an unknown home is no error
    return {key: found[key] for key in HONOURED_KEYS if key in found}


def server() -> str | None:
    """Returns the address of the server, or None if it is W&B's own."""
    return os.environ.get("WANDB_BASE_URL") or user_settings().get("base_url")


def entity() -> str | None:
    """Returns the user or team that the environment names, or None."""
    return os.environ.get("WANDB_ENTITY") or user_settings().get("entity")


def keep_to_folder(folder: Path) -> None:
    """Makes this process's environment W&B's: without variables that are not honoured, with its files in the folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_") and is_closed(name)]:
        del os.environ[name]
    os.environ.update(ALWAYS, WANDB_SILENT="true")
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[name] = str(folder)  # by default, W&B stages files in folders for the whole user
    if not _is_usable(_cache()):
        os.environ["WANDB_CACHE_DIR"] = tempfile.gettempdir()  # otherwise its log goes to the terminal


def without_files(settings: type[Any]) -> None:
    """Makes W&B's class `Settings` take the honoured keys where it would read, or fail to read, its settings files."""
    settings.update_from_system_settings = lambda present: present.update_from_dict(user_settings())


def be_impatient() -> None:
    """Gives the environment the settings of PATIENCE that the user's leaves open."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(f"WANDB_X_{name}", str(value))


def prepared(folder: Path) -> Any:
    """Returns the module `wandb`, which keeps its files in the folder and gives up as soon as `wandb sync` does."""
    keep_to_folder(folder)
    be_impatient()
    import wandb

    without_files(wandb.Settings)
    return wandb


def online_patience() -> dict[str, Any]:
    """Returns the settings of `ONLINE_PATIENCE` that the user's environment leaves open."""
    return {f"x_{name.lower()}": value for name, value in ONLINE_PATIENCE.items() if f"WANDB_X_{name}" not in os.environ}


def sync_environment(scratch: Path) -> dict[str, str]:
    """Returns the environment of `wandb sync`, whose settings and logs are in the folder `scratch`."""
    (scratch / "wandb").mkdir()  # for its logs, which would otherwise go elsewhere
    settings = configparser.ConfigParser(interpolation=None, default_section="")
    settings["default"] = user_settings()
    with open(scratch / "settings", "w", encoding="utf-8") as file:
        settings.write(file)
    honoured = {name: value for name, value in neutral(os.environ).items() if name != "WANDB_MODE"}
    patience = {f"WANDB_X_{name}": str(value) for name, value in PATIENCE.items()}
    places = dict.fromkeys(("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR"), str(scratch))
    return patience | honoured | places | ALWAYS


def _cache() -> Path:
    """Returns W&B's folder of caches and logs."""
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(os.environ.get("WANDB_CACHE_DIR") or usual, "wandb")


def _is_usable(folder: Path) -> bool:
    """Makes the folder, and returns whether it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _content(path: Path) -> dict[str, str]:
    """Returns what a settings file sets; nothing if it is not there or cannot be read."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, OSError, ValueError):
        return {}
    return dict(parser["default"]) if parser.has_section("default") else {}
