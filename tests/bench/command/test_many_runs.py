"""Many runs in one process."""

import resource
import time
from pathlib import Path

import pytest
from faults import outcome_of
from helpers import experiment

from bench.command import one_run as launching
from bench.command.status import describe


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
