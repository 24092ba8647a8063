"""Many runs in one process: what they leave behind, and what planning, scanning and starting them cost."""

import resource
import time
from pathlib import Path

import pytest
from faults import outcome_of
from helpers import experiment, run_one

from bench.command import one_run as launching
from bench.command.handover import Journal
from bench.command.planning import check_methods, plan, write_plan
from bench.command.status import describe
from bench.records import RunWriter


def resident():
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_thousand_runs_leave_nothing_behind(tmp_path, monkeypatch, capsys):
    overrides = ["budget.steps=3", "evaluations=1"]
    many = experiment(tmp_path, "fixed", "oho-global", "random-search", "population", overrides=overrides, seeds=range(500))
    seen = []
    plain = launching.run

    def watched(*arguments, **options):
        outcome = plain(*arguments, **options)
        seen.append((resident(), len(list(Path("/proc/self/fd").iterdir()))))
        return outcome

    monkeypatch.setattr(launching, "run", watched)
    assert outcome_of([many], tmp_path / "runs").total() == 2_000
    began = time.monotonic()
    assert "2000 runs: 2000 budget reached" in describe(tmp_path / "runs")
    seconds = time.monotonic() - began
    memory, files = zip(*seen, strict=True)
    with capsys.disabled():
        print(f"\nresident after 200, 1,000, 2,000 runs: {[memory[n - 1] >> 20 for n in (200, 1_000, 2_000)]} MiB;"
              f" open files {files[199]}, {files[-1]}; status {seconds:.2f} s")  # fmt: skip
    assert max(memory[200:]) < 1.05 * memory[199]
    assert files[-1] == files[199]
    assert seconds < 1


def processor_seconds(call):
    """Of this process: what else the machine does at the same time does not count."""
    start = time.process_time()
    call()
    return time.process_time() - start


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_runs_are_planned_in_ten_seconds_and_half_a_gibibyte(tmp_path):
    """All that `run` does before the first run, which takes some 3 s; PyTorch alone has another half of a gibibyte."""
    methods = ("fixed", "oho-global", "random-search", "population")
    before = resident()

    def prepared():
        many = experiment(tmp_path, *methods, seeds=range(25_000))
        planned = plan([many], tmp_path / "runs")
        assert len(planned) == 100_000
        check_methods(planned, None, Journal.new())
        write_plan(many, tmp_path / "runs")
        assert describe(tmp_path / "runs") == "small: 100000 runs: 100000 not finished"

    assert processor_seconds(prepared) < 10
    assert resident() - before < 512 << 20


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_thousand_ended_runs_are_found_in_five_seconds(tmp_path):
    """By `run`, which skips them, and by `status`: each takes some 1.5 s."""
    root, overrides = tmp_path / "runs", ["budget.steps=3", "evaluations=1"]
    many = experiment(tmp_path, "fixed", overrides=overrides, seeds=range(10_000))
    run_one(many.specs[0], root)
    files = {path.name: path.read_bytes() for path in (root / many.ids[0]).iterdir()}
    for identity in many.ids[1:]:
        (root / identity).mkdir()
        for name, content in files.items():
            (root / identity / name).write_bytes(content)
    write_plan(many, root)
    found = []
    assert processor_seconds(lambda: found.extend(plan([many], root))) < 5
    assert all(item.is_done for item in found)
    assert processor_seconds(lambda: found.append(describe(root))) < 5
    assert found[-1] == "small: 10000 runs: 10000 budget reached"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_done_around_a_run_does_not_grow_with_their_number(tmp_path, monkeypatch):
    """Less than 20 ms a run, the last ones as the first ones; the runs themselves are left out."""
    many = experiment(tmp_path, "fixed", overrides=["budget.steps=3", "evaluations=1"], seeds=range(1_000))
    outcome = run_one(many.specs[0], tmp_path / "one")
    moments = []

    def ended(spec, root, **options):
        RunWriter(root, spec).close(outcome)
        moments.append(time.process_time())
        return outcome

    monkeypatch.setattr(launching, "run", ended)
    assert outcome_of([many], tmp_path / "runs").total() == 1_000
    first, last = moments[300] - moments[0], moments[-1] - moments[-301]
    assert last / 300 < 0.02
    assert last < 1.5 * first
