"""What `hpcddl submit` would tell sbatch, word for word, and what it refuses."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hpcddl.common.ranges import ranges
from hpcddl.submit.array import tasks_of
from hpcddl.submit.job import Job, sbatch_words
from hpcddl.submit.site import sbatch_options
from tests.conftest import ROOT

GOLDEN = Path(__file__).parent / "golden"
# file -> words of the command; `hpcddl submit WORDS --dry-run` must print the file
LINES = {
    "train": "swb300.dpsgd strategy.topology=ring",
    "train_puhti": "--site puhti --nodes 4 --stage site --after 4711 --report swb300.dpsgd",
    "train_jean_zay_chain": "--site jean_zay --chain 3 --report --out runs/a swb300.ssgd",
    "train_lonestar6": "--site lonestar6 --nodes 4 --sbatch=--time=08:00:00 mini.ssgd epochs=3 "
    "global_batch=480",
    "sweep": "--report mini.table4 epochs=2",
    "sweep_some": "--site puhti --array 0-3,7%2 --sbatch=--qos=low mini.table4",
    "sweep_learners": "--chain 2 --after 5 --after 6 b.table3",
    "prep": "--site puhti --array 4 prep -- --data a,cmvn=none --data 'a b' --ali x --out z",
    "report": "--site puhti --after 12 report runs/a runs/b -- --out runs/report",
}


@pytest.mark.parametrize("name", LINES)
def test_command_lines(name: str, command) -> None:
    done = command("submit", "--dry-run", *shlex.split(LINES[name]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace(f"{ROOT}/", "") == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("swb300.dpgsd", "recipe 'swb300.dpgsd': must be a YAML file or one of"),
        ("swb300.dpsgd epoch=3", "epoch"),
        ("--nodes 3 swb300.dpsgd", "global_batch=2048: must be a multiple of the 24 learners"),
        ("--nodes 0 swb300.dpsgd", "--nodes: 0: must be a whole number, at least 1"),
        ("--site nowhere mini.ssgd", "--site nowhere: must be a file"),
        ("--array 3 mini.ssgd", "--array 3: only for prep and sweeps"),
        ("--array 0-30 mini.table4", "--array 0-30: must be such as"),
        ("--array 1-4 prep", "--array 1-4: must be how many jobs pack"),
        ("--nodes 3 mini.table4", "--nodes 3: must divide the 4 learners"),
        ("--chain 2 prep", "--chain: only for a recipe or a sweep"),
        ("--sbatch=--nodes=2-4 mini.ssgd", "--nodes=2-4: must be a whole number"),
        ("--after 1;2 mini.ssgd", "--after 1;2: must be a job's number"),
    ],
)
def test_what_would_fail_later_is_refused_now(words: str, fault: str, command) -> None:
    done = command("submit", "--dry-run", *words.split())
    assert done.returncode == 2
    assert fault in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["submit", "--dry-run", "mini.ssgd"], ["jobs"]])
def test_mpi_does_not_start(words: list[str], tmp_path: Path) -> None:
    """Login nodes may not let it; `hpcddl jobs` does not even import it."""
    code = (
        "import sys; from hpcddl.cli import main; status = main(sys.argv[1:]);"
        "mpi = sys.modules.get('mpi4py.MPI');"
        "assert (mpi is None) == (sys.argv[1] == 'jobs'), mpi;"
        "sys.exit(status or bool(mpi and mpi.Is_initialized()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_words_stay_words() -> None:
    """Spaces, quotes and semicolons reach the script as they were given."""
    nasty = ("a b", "c;d", "$(e)", "'f")
    words = sbatch_words(Job("train", "n", (), nasty), Path("jobs"), None, [])
    assert words == ["sbatch", "--parsable", "--job-name=n", "jobs/train.sbatch", *nasty]


def test_a_site_asks_by_kind_of_job() -> None:
    """Lines of other kinds, doubled comments and what follows a # are passed over."""
    text = (
        "#SBATCH --account=a # mine\n##SBATCH --x\n#SBATCH-TRAIN --gres=gpu:8 --time=1\n"
        "#SBATCH-PREP --partition=cpu\nlauncher=srun\n"
    )
    assert sbatch_options(text, "sweep") == ("--account=a", "--gres=gpu:8", "--time=1")
    assert sbatch_options(text, "prep") == ("--account=a", "--partition=cpu")
    assert sbatch_options(text, "report") == ("--account=a",)


@pytest.mark.parametrize("tasks", [[0], [0, 1], [0, 1, 2, 5], [1, 3, 4, 5, 9]])
def test_arrays_are_written_as_they_are_read(tasks: list[int]) -> None:
    assert tasks_of(ranges(tasks), 10) == tasks
