"""`--storage s3://...` with a real server of S3's protocol, and with two nodes of Ray that share nothing but that."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from faults import command, timeless
from held_runs import LONG, write_held
from helpers import ROOT, experiment, run_one
from processes import until
from simulated_pool import NodesHere

from bench.command.cluster import OnNodes
from bench.command.handover import Journal
from bench.command.planning import plan
from bench.command.store import Store
from bench.experiment.expansion import load_experiment
from bench.experiment.yaml_file import ConfigError
from bench.protocol.checkpoints import CHECKPOINT
from bench.records import Status, StorageError, read_outcome, run_id

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900), pytest.mark.allow_hosts(["127.0.0.1"])]
pytest.importorskip("moto")
pytest.importorskip("s3fs")

from ray_nodes import Cluster, free_ports, holder_of  # noqa: E402


@pytest.fixture(scope="module")
def server():
    port = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, cwd=ROOT,
    )  # fmt: skip
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture
def bucket(server, monkeypatch):
    """The URL of an empty bucket."""
    for name, value in {
        "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    def answers():
        try:
            return urllib.request.urlopen(server, timeout=1).status
        except OSError:
            return None

    until(answers, seconds=300)
    name = f"bucket{os.urandom(4).hex()}"
    urllib.request.urlopen(urllib.request.Request(f"{server}/{name}", method="PUT"))
    return f"s3://{name}"


def launched(small, out, url):
    launcher = OnNodes(NodesHere(), 1, None, Store(url))
    launcher.begin(out)
    return launcher.launch([small], plan([small], out), out, data_root=None, journal=Journal.new())


def test_runs_are_kept_on_s3_and_pulled_from_there(bucket, tmp_path):
    small, out = experiment(tmp_path, "fixed", "adam"), tmp_path / "runs"
    assert launched(small, out, f"{bucket}/quick") == {Status.BUDGET_REACHED: 2}
    assert command("pull", f"{bucket}/quick", tmp_path / "copy").exit_code == 0
    for spec in small.specs:
        run_one(spec, tmp_path / "here")
        assert timeless(tmp_path / "copy" / run_id(spec)) == timeless(tmp_path / "here" / run_id(spec))
    assert command("status", tmp_path / "copy").stdout.startswith("small: 2 runs: 2 budget reached")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").glob("*/*.json*")}
    assert command("pull", f"{bucket}/quick", tmp_path / "copy").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert launched(small, tmp_path / "another", f"{bucket}/quick") == {}


def test_a_bucket_that_is_not_there_is_one_line(bucket, tmp_path):
    with pytest.raises(StorageError, match=r"^s3://nosuch/quick: the store refuses \(.+\); repeat the command"):
        Store("s3://nosuch/quick").write("a", b"a")
    answer = command("pull", "s3://nosuch/quick", tmp_path / "copy")
    assert (answer.exit_code, len(answer.stderr.splitlines())) == (2, 1)
    with pytest.raises(ConfigError, match="gcsfs"):
        Store("gs://bucket/quick")


def test_a_run_continues_on_another_node_from_its_checkpoint_on_s3(bucket, tmp_path):
    pytest.importorskip("ray")
    config, out, url = write_held(tmp_path), tmp_path / "runs", f"{bucket}/quick"
    (spec,) = load_experiment(config, overrides=[LONG]).specs
    cluster = Cluster(tmp_path)
    try:
        cluster.start("second")
        with cluster.held():
            process = cluster.begin(config, "--set", LONG, "--out", out, "--storage", url)
            until(lambda: Store(url).read(f"{run_id(spec)}/{CHECKPOINT}"), seconds=300)
            os.kill(holder_of(run_id(spec)), signal.SIGKILL)
        _, errors = process.communicate(timeout=300)
    finally:
        cluster.close()
    assert process.returncode == 0, errors
    assert re.search(r"died on (head|second) \(WorkerCrashedError\); it continues from its checkpoint", errors)
    assert read_outcome(out / run_id(spec)).conditions["resumptions"] == 1
    run_one(spec, tmp_path / "here")
    assert timeless(out / run_id(spec)) == timeless(tmp_path / "here" / run_id(spec))
    assert Store(url).read(f"{run_id(spec)}/{CHECKPOINT}") is None
