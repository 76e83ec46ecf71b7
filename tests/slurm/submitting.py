"""Submits to the tests' cluster, and what stands in for `hpcddl` in its jobs."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.slurm.cluster import Cluster, wait_until

Submit = Callable[..., str]
BIN = Path(sys.executable).parent

SITE = """\
#SBATCH-TRAIN --ntasks-per-node=2 --gres=gpu:v100:2
#SBATCH-REPORT --mem=500M
launcher={launcher}
local_disk={folder}/disk
requeues={requeues}
grace_seconds={grace}
export OMP_NUM_THREADS=1
PATH={path}:$PATH
"""

# In place of the ranks' `hpcddl`, for a long training: each rank shows that it is up, and waits for
# the warning; started again, it ends the run. Launcher, signals and Slurm are the real ones.
STAND_IN = """\
#!/bin/bash
rank=${OMPI_COMM_WORLD_RANK:-$SLURM_PROCID}
out=$(sed -E 's/.*--out ([^ ]+).*/\\1/' <<<"$*")
mkdir -p "$out"
if [[ ${SLURM_RESTART_COUNT:-0} -gt 0 ]]; then
    touch "$out/summary.json"
    exit 0
fi
warned() {
    touch "$out/warned-$rank"
    ON_WARNING
}
trap warned USR2
AT_FIRST
touch "$out/up-$rank"
for ((i = 0; i < 1000; i++)); do sleep 0.1; done
"""

# The real `hpcddl`, which between two updates waits while there is a file `hold`, unless it is told
# to stop: so a run is neither over nor anywhere else when something happens to it.
HELD = """\
#!{python}
import sys, time
from pathlib import Path
from hpcddl.cli import main
if sys.argv[1] == "train" or "--run" in sys.argv:
    from hpcddl.run.saver import Saver
    real = Saver.__call__
    def call(self, position):
        if position.steps == {steps}:
            Path("held-" + str(self._strategy.world.rank)).touch()
            while Path("hold").exists() and not self._notice.given():
                time.sleep(0.05)
        real(self, position)
    Saver.__call__ = call
sys.exit(main())
"""


def submit(
    cluster: Cluster,
    folder: Path,
    *words: object,
    launcher: str = "mpirun",
    requeues: int = 3,
    grace: int = 60,
    path: object = BIN,
) -> str:
    """`hpcddl submit` from `folder`, for a site with these settings; the job's id."""
    site = SITE.format(launcher=launcher, folder=folder, requeues=requeues, grace=grace, path=path)
    (folder / "site.sh").write_text(site)
    program = (sys.executable, "-m", "hpcddl.cli", "submit", "--site", folder / "site.sh")
    done = cluster.run(*program, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_until_idle(cluster: Cluster) -> None:
    wait_until(lambda: cluster.run("squeue", "-h").stdout == "", seconds=600)


def state(cluster: Cluster, job: str, field: str = "JobState") -> str:
    text = cluster.run("scontrol", "show", "job", job).stdout
    return re.search(rf"\b{field}=(\S+)", text)[1]  # type: ignore[index]


def processes(job: str) -> Iterator[tuple[int, dict[str, str], str]]:
    """Of a job, on both nodes: number, environment, name of the program."""
    for entry in Path("/proc").iterdir():
        try:
            text = (entry / "environ").read_bytes().decode()
            name = (entry / "comm").read_text().strip()
        except (OSError, UnicodeDecodeError):
            continue
        pairs = (line.partition("=") for line in text.split("\0"))
        variables = {key: value for key, _, value in pairs}
        if variables.get("SLURM_JOB_ID") == job:
            yield int(entry.name), variables, name


def output(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("slurm/*.out")))


def stand_in(folder: Path, on_warning: str = ":", at_first: str = ":") -> str:
    """A PATH with the stand-in for `hpcddl` on it."""
    return on_path(folder, STAND_IN.replace("ON_WARNING", on_warning).replace("AT_FIRST", at_first))


def held(folder: Path, steps: int = 15) -> str:
    """A PATH with an `hpcddl` that waits after so many updates until `folder`/hold is removed."""
    (folder / "hold").touch()
    return on_path(folder, HELD.format(python=sys.executable, steps=steps))


def until_held(folder: Path) -> None:
    """All four ranks wait; else the failure shows what the job has printed."""
    try:
        wait_until(lambda: len(list(folder.glob("held-*"))) == 4)
    except AssertionError as waited:
        raise AssertionError(f"{waited}\n{output(folder)}") from None


def on_path(folder: Path, text: str) -> str:
    """A PATH with this program as `hpcddl` on it."""
    (folder / "bin").mkdir()
    (folder / "bin" / "hpcddl").write_text(text)
    (folder / "bin" / "hpcddl").chmod(0o755)
    return f"{folder}/bin:{BIN}"
