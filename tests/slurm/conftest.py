"""A real Slurm of two nodes on this machine: its own daemons, keys and ports, gone afterwards."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "srun", "sbatch")


@dataclass(frozen=True)
class Cluster:
    """Two nodes, n1 and n2, of four processors and four fake V100 each."""

    folder: Path

    def run(
        self, *words: object, timeout: float = 120, cwd: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        """A command that sees this Slurm, by default in the project's folder, and its output."""
        # What a launcher around the tests has set must not pass for this cluster's word.
        own = {k: v for k, v in environment().items() if not k.startswith(("SLURM_", "SBATCH_"))}
        return subprocess.run(
            list(map(str, words)),
            env={**own, "SLURM_CONF": str(self.folder / "slurm.conf")},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def configuration(folder: Path) -> str:
    host = socket.gethostname().split(".")[0]
    controller, first, second = free_ports(3)
    return f"""\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
TmpFS={folder}/tmp.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
GresTypes=gpu
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
NodeName=DEFAULT CPUs=4 RealMemory=4000 Gres=gpu:v100:4
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second}
PartitionName=all Nodes=n1,n2 Default=YES State=UP
"""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
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
    variables = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    daemons = [
        ["munged", "--foreground", "--force", *files],
        ["slurmctld", "-D"],
        # Each with a host name of its own, by which MPI tells which ranks share a node.
        *(
            ["unshare", "--uts", "sh", "-c", f"hostname {node} && exec slurmd -D -N {node}"]
            for node in ("n1", "n2")
        ),
    ]
    quiet = subprocess.DEVNULL
    running = []
    found = Cluster(folder)
    try:
        for words in daemons:
            running.append(subprocess.Popen(words, env=variables, stdout=quiet, stderr=quiet))
            if words[0] == "munged":
                wait_until((folder / "munge.socket").exists)
        wait_until(lambda: found.run("sinfo", "-h", "-t", "idle", "-o", "%D").stdout == "2\n")
        yield found
    finally:
        for daemon in reversed(running):
            daemon.send_signal(signal.SIGTERM)
        for daemon in running:
            daemon.wait(timeout=30)
        shutil.rmtree(folder)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
