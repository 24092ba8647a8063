"""What W&B takes from the user's variables and files, and what it must not."""

import os

import pytest
import wandb

from bench.experiment.schema import Tracking
from bench.tracking.wandb_settings import entity, keep_to_folder, server, sync_environment, without_files

LEAK = "run_id = abc\nsweep_id = s1\nproject = leak\nmode = disabled\nrun_notes = leak\nignore_globs = *\n"
GIVEN = (
    "RUN_ID", "SWEEP_ID", "PROJECT", "RESUME", "DISABLED", "DIR", "DATA_DIR", "ARTIFACT_DIR", "SILENT", "ERROR_REPORTING",
    "SAGEMAKER_DISABLE",
)  # fmt: skip


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A user's settings and a working folder's, which name a run; only the user's own name an entity and a server."""
    for name, extra in (("config", "entity = me\nbase_url = http://127.0.0.1:9\n"), ("wandb", "entity = other\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings").write_text(f"[default]\n{LEAK}{extra}")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(places, monkeypatch):
    """What W&B makes of the files once it begins runs for us."""
    monkeypatch.setattr(wandb.Settings, "update_from_system_settings", wandb.Settings.update_from_system_settings)
    without_files(wandb.Settings)
    settings = wandb.Settings(settings_system=str(places / "config/settings"), root_dir=str(places), silent=True)
    settings.update_from_system_settings()
    return settings


def test_settings_files_name_the_user_and_the_server_but_no_run(places, monkeypatch):
    settings = read(places, monkeypatch)
    assert (settings.entity, settings.base_url) == ("me", "http://127.0.0.1:9")
    found = (settings.run_id, settings.sweep_id, settings.project, settings.run_notes, settings.ignore_globs)
    assert found == (None, None, None, None, ())
    assert settings.mode == "online"


def test_variables_win_over_the_users_file(places, monkeypatch):
    assert (entity(), server()) == ("me", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ENTITY", "a-team")
    monkeypatch.setenv("WANDB_BASE_URL", "https://w.example.org")
    assert (entity(), server()) == ("a-team", "https://w.example.org")


def test_damaged_settings_are_none(places, monkeypatch):
    for place in ("config", "wandb"):
        (places / place / "settings").write_bytes(b"\xff\xfe run_id")
    assert (entity(), server()) == (None, None)
    assert read(places, monkeypatch).entity is None
    (places / "config/settings").write_text("run_id = without a section")
    assert (entity(), server()) == (None, None)


def test_a_run_leaves_no_variable_that_names_another(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        for name in (*GIVEN, "API_KEY", "ENTITY"):
            patch.setenv(f"WANDB_{name}", "user's")
        keep_to_folder(tmp_path)
        assert {name for name, value in os.environ.items() if value == "user's"} == {"WANDB_API_KEY", "WANDB_ENTITY"}
        assert os.environ["WANDB_DIR"] == str(tmp_path)


def test_sync_gets_an_environment_of_its_own(places, monkeypatch):
    for name, value in {"RUN_ID": "abc", "PROJECT": "leak", "MODE": "disabled", "X_GRAPHQL_RETRY_MAX": "7"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    scratch = places / "scratch"
    scratch.mkdir()
    given = sync_environment(scratch)
    assert not {"WANDB_RUN_ID", "WANDB_PROJECT", "WANDB_MODE"} & given.keys()
    assert given["WANDB_X_GRAPHQL_RETRY_MAX"] == "7"
    text = (scratch / "settings").read_text()
    assert "entity = me" in text
    assert "leak" not in text


def test_the_mode_is_the_files_and_else_the_variables():
    assert Tracking().mode_in({}) == "offline"
    assert Tracking().mode_in({"WANDB_MODE": "disabled"}) == "disabled"
    assert Tracking(mode="offline").mode_in({"WANDB_MODE": "disabled"}) == "offline"
