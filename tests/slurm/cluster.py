"""A real Slurm of two nodes on this machine: its daemons, its configuration, and its commands."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT, environment


@dataclass(frozen=True)
class Cluster:
    """Two nodes, n1 and n2, of four processors and four fake V100 each."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *words: str) -> None:
        """A daemon, in the foreground of a process of its own."""
        path = f"{os.environ['PATH']}:/usr/sbin"
        own = {**os.environ, "PATH": path, "SLURM_CONF": str(self.folder / "slurm.conf")}
        quiet = subprocess.DEVNULL
        self.daemons[name] = subprocess.Popen(words, env=own, stdout=quiet, stderr=quiet)

    def start_node(self, name: str) -> None:
        """With a host name of its own, by which MPI tells which ranks share a node."""
        line = f"hostname {name} && exec slurmd -D -N {name}"
        self.start(name, "unshare", "--uts", "sh", "-c", line)

    def stop(self) -> None:
        """All daemons, the last started first."""
        for daemon in reversed(self.daemons.values()):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons.values():
            daemon.wait(timeout=30)

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
KillWait=5
NodeName=DEFAULT CPUs=4 RealMemory=4000 Gres=gpu:v100:4
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second}
PartitionName=all Nodes=n1,n2 Default=YES State=UP
"""


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Limits are for what never comes: on a busy machine starting ranks may take minutes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
