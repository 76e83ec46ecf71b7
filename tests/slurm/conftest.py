"""The tests' Slurm, with keys and ports of its own, gone afterwards."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.slurm import submitting
from tests.slurm.cluster import Cluster, configuration, wait_until

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "srun", "sbatch")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests here wait for jobs, each with a limit of its own (wait_until)."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1200))
            item.add_marker(pytest.mark.thorough)


@pytest.fixture(scope="package")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Starts the daemons (as root, where Slurm is installed; else the tests skip, saying so)."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"no {missing[0]}: apt-get install slurm-wlm munge")
    if os.getuid() != 0:
        pytest.skip("Slurm's daemons need root")
    folder = Path(tempfile.mkdtemp(prefix="hpcddl-slurm-"))
    folder.chmod(0o755)  # munge refuses a socket that others cannot reach
    for name in ("state", "spool.n1", "spool.n2", "tmp.n1", "tmp.n2"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(configuration(folder))
    for index in range(4):
        (folder / f"gpu{index}").touch()
    (folder / "gres.conf").write_text(
        f"NodeName=n[1-2] Name=gpu Type=v100 File={folder}/gpu[0-3]\n"
    )
    subprocess.run(["/usr/sbin/mungekey", "-c", "-k", folder / "munge.key"], check=True)
    files = [f"--{n}={folder}/munge.{n.split('-')[0]}" for n in ("socket", "key-file", "pid-file")]
    files += [f"--{n}-file={folder}/munge.{n}" for n in ("log", "seed")]
    found = Cluster(folder)
    began = time.monotonic()
    try:
        found.start("munged", "munged", "--foreground", "--force", *files)
        wait_until((folder / "munge.socket").exists)
        found.start("slurmctld", "slurmctld", "-D")
        found.start_node("n1")
        found.start_node("n2")
        wait_until(lambda: found.run("sinfo", "-h", "-t", "idle", "-o", "%D").stdout == "2\n")
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder)
        terminal = request.config.pluginmanager.get_plugin("terminalreporter")
        if terminal:
            terminal.write_line(f"\nSlurm ran for {time.monotonic() - began:.0f} s")


@pytest.fixture
def submit(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """`hpcddl submit` from the test's own folder; nothing of it is left in the queue."""
    yield partial(submitting.submit, cluster, tmp_path)
    cluster.run("scancel", "--user=root")  # what a failed test has left
    submitting.wait_until_idle(cluster)
