"""A warm rank is a cold one but for the time: what it sees, what it computes, how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment, run_python
from tests.synthetic import write_recipe, write_shards
from tests.warm.start import warm_python

pytestmark = pytest.mark.thorough

SEES = """
import json, os, sys, torch
from mpi4py import MPI
print(json.dumps({
    "words": sys.argv, "folder": os.getcwd(), "name": __name__,
    "cores": sorted(os.sched_getaffinity(0)), "input": sys.stdin.read(),
    "threads": torch.get_num_threads(),
    "rank": MPI.COMM_WORLD.rank, "level": MPI.Query_thread(),
    "environment": {k: v for k, v in os.environ.items() if k.startswith(("HPCDDL", "SLURM"))},
    "files": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:3],
}))
"""


def test_sees_what_its_client_was_given(tmp_path: Path) -> None:
    """Words, folder, cores, standard input, environment."""
    core = min(os.sched_getaffinity(0))
    found = []
    for python in ([sys.executable], warm_python()):
        done = subprocess.run(
            ["taskset", "-c", str(core), *python, "-c", SEES, "a", "b c"],
            env={**environment(), "SLURM_X": "1"},
            cwd=tmp_path,
            input="said",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    assert found[0]["cores"] == [core]
    assert found[0]["words"] == ["-c", "a", "b c"]


def test_each_has_a_random_start_of_its_own() -> None:
    """As new processes have: no two draw the same where nobody has set a seed."""
    code = "import numpy, random, torch; print(torch.rand(1), numpy.random.rand(), random.random())"
    one, other = (run_python("-c", code).stdout.split() for _ in range(2))
    assert len(one) == len(other) == 3
    assert not set(one) & set(other)


def test_trains_to_the_same_bits(tmp_path: Path) -> None:
    """DPSGD with dropout on three ranks."""
    recipe = write_recipe(tmp_path / "r.yaml", write_shards(tmp_path / "shards"), "dpsgd")
    checksums = []
    for cold in (True, False):
        out = tmp_path / str(cold)
        words = ("train", recipe, "epochs=1", "model.dropout=0.3", "--out", out)
        done = run_python("-m", "hpcddl.cli", *words, ranks=3, cold=cold)
        assert done.returncode == 0, done.stderr
        checksums.append(json.loads((out / "summary.json").read_text())["weights_sha256"])
    assert checksums[0] == checksums[1]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(75)", 75),
        ("raise SystemExit('no')", 1),
        ("1 / 0", 1),
        ("import os; os._exit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os; os.abort()", -signal.SIGABRT),
    ],
)
def test_ends_as_its_work_ended(code: str, status: int) -> None:
    cold = run_python("-c", code, cold=True)
    warm = run_python("-c", code)
    assert warm.returncode == cold.returncode == status
    assert ("ZeroDivisionError" in warm.stderr) == ("/" in code)


def test_an_abort_of_one_rank_ends_all() -> None:
    """While the others wait for it."""
    code = "from mpi4py import MPI; w = MPI.COMM_WORLD; w.Abort(5) if w.rank == 2 else w.Barrier()"
    assert run_python("-c", code, ranks=3, timeout=30).returncode == 5


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_the_rank(number: int, tmp_path: Path) -> None:
    """Those that can be caught; the others end it with its client."""
    code = (
        "import os, signal, sys, time\n"
        "for n in (signal.SIGUSR2, signal.SIGTERM):\n"
        "    signal.signal(n, lambda n, frame: sys.exit(100 + n))\n"
        f"open({str(tmp_path / 'pid')!r} + '.new', 'w').write(str(os.getpid()))\n"
        f"os.rename({str(tmp_path / 'pid')!r} + '.new', {str(tmp_path / 'pid')!r})\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([*warm_python(), "-c", code], env=environment(), cwd=ROOT) as client:
        pid = int(_when_written(tmp_path / "pid"))
        client.send_signal(number)
        expected = -number if number == signal.SIGKILL else 100 + number
        assert client.wait(timeout=30) == expected
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end, "the rank outlived its client"
        time.sleep(0.02)


def _when_written(path: Path) -> str:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return path.read_text()
