"""`--storage`: runs that are kept in a store that has no locks, and what reads them."""

import fsspec
import pytest
from faults import command, the_line, timeless
from helpers import experiment, run_one, stopped, write_config
from simulated_pool import NodesHere

from bench.command import store as store_module
from bench.command.cluster import OnNodes
from bench.command.handover import Journal
from bench.command.planning import plan
from bench.command.remote_run import Result, make_remotely
from bench.command.scheduling import End
from bench.command.store import Mirror, Scratch, Store, pull
from bench.experiment.yaml_file import ConfigError
from bench.protocol.checkpoints import CHECKPOINT
from bench.records import Status, StorageError, read_outcome, run_id
from bench.records.errors import ClusterError


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    yield f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/store"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(store_module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(store_module, "TRY_SECONDS", 0.0)


def launched(small, out, url, pool=None):
    launcher = OnNodes(pool or NodesHere(), 1, None, Store(url))
    launcher.begin(out)
    return launcher.launch([small], plan([small], out), out, data_root=None, journal=Journal.new())


def names_in(url, part=""):
    system, root = fsspec.core.url_to_fs(url)
    return sorted(place.removeprefix(root).lstrip("/") for place in system.find(f"{root}/{part}".rstrip("/")))


def test_runs_of_a_store_are_those_made_here_and_are_read_from_their_mirror(url, tmp_path, capsys):
    small, out = experiment(tmp_path, "fixed"), tmp_path / "runs"
    run = run_id(small.specs[0])
    assert launched(small, out, url) == {Status.BUDGET_REACHED: 1}
    assert capsys.readouterr().out == f"{url} has no locks: until this command has ended, start no other one for it\n"
    run_one(small.specs[0], tmp_path / "here")
    assert timeless(out / run) == timeless(tmp_path / "here" / run)
    files = [f"{run}/{name}" for name in (".worker", "outcome.json", "records.jsonl", "spec.json")]
    assert names_in(url) == [*files, "experiments/small.json"]
    pull(url, tmp_path / "copy")
    for name in files[1:]:
        assert (tmp_path / "copy" / name).read_bytes() == (out / name).read_bytes()
    assert command("status", tmp_path / "copy").stdout.startswith("small: 1 runs: 1 budget reached")
    assert launched(small, tmp_path / "another", url) == {}  # what the store has is done


def test_a_run_of_a_worker_that_died_continues_from_its_checkpoint_in_the_store(url, tmp_path):
    small, out = experiment(tmp_path, "fixed"), tmp_path / "runs"
    run = run_id(small.specs[0])
    stopped(small.specs[0], tmp_path / "half", 3)
    assert (tmp_path / "half" / run / CHECKPOINT).exists()
    Store(url).push(tmp_path / "half", run)
    assert launched(small, out, url) == {Status.BUDGET_REACHED: 1}
    assert read_outcome(out / run).conditions["resumptions"] == 1
    run_one(small.specs[0], tmp_path / "here")
    assert timeless(out / run) == timeless(tmp_path / "here" / run)
    assert f"{run}/{CHECKPOINT}" not in names_in(url)


def test_a_checkpoint_is_stored_after_the_records_before_it(url, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    place, written = Scratch(Store(url), tmp_path, ["run"]), []
    place.begin()
    plain = place._store.write
    monkeypatch.setattr(place._store, "write", lambda name, content: (written.append(name), plain(name, content)))
    (tmp_path / "run" / "records.jsonl").write_text("{}\n")
    place.progress(0.1, None)
    assert written == []  # there is no checkpoint yet
    (tmp_path / "run" / CHECKPOINT).write_text("first")
    place.progress(0.2, None)
    place.progress(0.3, None)
    assert written == ["run/records.jsonl", f"run/{CHECKPOINT}"]
    (tmp_path / "run" / CHECKPOINT).unlink()
    (tmp_path / "run" / "outcome.json").write_text("{}")
    place.end()
    assert names_in(url) == ["run/.worker", "run/outcome.json", "run/records.jsonl"]


def test_a_worker_whose_run_another_one_has_taken_over_stores_nothing(url, tmp_path):
    first, second = (Scratch(Store(url), tmp_path / name, ["run"]) for name in ("first", "second"))
    first.begin()
    second.begin()
    (tmp_path / "first" / "run").mkdir(parents=True)
    (tmp_path / "first" / "run" / "records.jsonl").write_text("{}\n")
    with pytest.raises(StorageError, match=f"^{url}/run: another process has taken the run over$"):
        first.end()
    assert names_in(url) == ["run/.worker"]


def test_a_mirror_follows_its_store(url, tmp_path):
    source = tmp_path / "source" / "run"
    source.mkdir(parents=True)
    (source / "outcome.json").write_text("first")
    (source / CHECKPOINT).write_text("large")
    store = Store(url)
    store.push(source.parent, "run")
    Mirror(Store(url), tmp_path / "mirror").begin()
    assert (tmp_path / "mirror" / "run" / "outcome.json").read_text() == "first"
    assert not (tmp_path / "mirror" / "run" / CHECKPOINT).exists()
    (source / "outcome.json").unlink()
    (source / "records.jsonl").write_text("second")
    store.push(source.parent, "run")
    Mirror(Store(url), tmp_path / "mirror").begin()
    assert [path.name for path in (tmp_path / "mirror" / "run").iterdir()] == ["records.jsonl"]


def test_a_store_that_refuses_ends_the_command_with_one_reason(tmp_path, monkeypatch):
    url = f"memory://{tmp_path.name}"
    small, pool = experiment(tmp_path, "fixed"), NodesHere()

    def refuse(store, place, content):
        raise PermissionError("Access Denied")

    def refused(start):
        with monkeypatch.context() as patch:
            patch.setattr(Store, "_put", refuse)
            return make_remotely(pool.queue_order)

    plain = pool.start

    def start(start, order):
        pool.queue_order = order
        plain(start, order)

    pool.start, pool.instead = start, refused
    with pytest.raises(ClusterError, match=r"the store refuses \(Access Denied\)"):
        launched(small, tmp_path / "runs", url, pool)


def test_a_failed_run_is_stored(tmp_path):
    small, url = experiment(tmp_path, "fixed"), f"file://{tmp_path}/store"
    pool = NodesHere(lambda start: Result(End.DIED, "killed"))
    assert launched(small, tmp_path / "runs", url, pool) == {Status.FAILED: 1}
    assert f"{run_id(small.specs[0])}/outcome.json" in names_in(url)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("bucket/folder", "bucket/folder: a URL is expected, such as s3://bucket/folder"),
        ("nosuch://bucket", "nosuch://bucket: Protocol not known: nosuch"),
    ],
)
def test_what_is_no_store_is_one_line(given, problem, tmp_path):
    with pytest.raises(ConfigError, match=f"^{problem}$"):
        Store(given)
    words = "run", write_config(tmp_path, "fixed"), "--out", tmp_path / "runs", "--storage", "memory://a"
    assert the_line(command(*words), 2) == "oho-bench: --storage: is an option of --launcher ray and slurm, not of local"
    assert the_line(command("pull", f"file://{tmp_path}/none", tmp_path / "copy"), 2) == (
        f"oho-bench: file://{tmp_path}/none: there are no results; give the URL of `oho-bench run --storage`"
    )
    assert not (tmp_path / "copy").exists()


def test_names_that_lead_out_of_the_folder_are_not_copied(tmp_path):
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pipe_file("/odd/a/records.jsonl", b"fine")
    inner = system.store["/odd/a/records.jsonl"]
    system.store["/odd/../outside"] = inner
    Store("memory://odd").pull(tmp_path / "deep" / "copy")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {".store.json", "records.jsonl"}
