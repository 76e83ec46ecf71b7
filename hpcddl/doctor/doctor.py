"""`hpcddl doctor`: checks the installation and the launch, and says how to fix faults."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from hpcddl.cluster.launcher import promised_rank, promised_size
from hpcddl.common.bounds import above
from hpcddl.doctor import examine
from hpcddl.doctor.between import clocks, storage
from hpcddl.doctor.facts import Job, Rank
from hpcddl.doctor.finding import Finding, worst
from hpcddl.doctor.machine import machine, slurm
from hpcddl.doctor.software import software


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl doctor`."""
    parser.description = (
        "Check the libraries, the launch, the nodes and the disks, on this machine or on all "
        "ranks that a launcher starts; say what is wrong and how to fix it. Exit status 1 when "
        "training cannot work."
    )
    parser.epilog = "example: mpirun -np 16 --map-by ppr:8:node --bind-to none hpcddl doctor"
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder in which runs will be stored"
    )
    parser.add_argument("--json", action="store_true", help="print facts and findings as JSON")
    parser.add_argument(
        "--patience", type=above(0), default=60.0, help="seconds to wait for the other ranks"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the report; exit status 0, or 1 after a fault."""
    job = gather(arguments.out, arguments.patience)
    findings = examine(job)
    verdict = worst(findings.values()).verdict
    # N worlds of one have N first ranks: only the launcher's speaks.
    if promised_rank(os.environ) == 0:
        print(_as_json(job, findings) if arguments.json else "\n".join(lines(job, findings)))
        sys.stdout.flush()
    return int(verdict == "fault")


def gather(folder: Path, patience_seconds: float) -> Job:
    """Gathers the facts of all ranks on every rank. Collective."""
    own = Rank(
        host=os.uname().nodename,
        promised=promised_size(os.environ),
        software=software(),
        machine=machine(),
        slurm=slurm(os.environ, ask=promised_rank(os.environ) == 0),
    )
    if "mpi4py" in own.software.broken:
        return Job((own,))
    from hpcddl.cluster.ranks import join

    with _at_most(patience_seconds, own.host):
        comm, node = join()
        ahead, error = clocks(comm)
        own = replace(
            own,
            rank=comm.rank,
            size=comm.size,
            node=node.bcast(comm.rank),
            clock_seconds=ahead,
            clock_error_seconds=error,
            storage=storage(comm, folder),
        )
        return Job(tuple(comm.allgather(own)))


@contextmanager
def _at_most(seconds: float, host: str) -> Iterator[None]:
    """Ends the process with a message if the code inside takes longer.

    The first message between two nodes hangs for ever if MPI chose an interface that does not
    connect them, and Python handles no signal while a rank is inside a collective.
    """

    def give_up() -> None:
        sys.stderr.write(
            f"hpcddl doctor: {host} waited {seconds:g} s for the other ranks: some did not start, "
            "or MPI picked a network that does not connect the nodes; fix: export "
            "OMPI_MCA_btl_tcp_if_include=INTERFACE (of `ip -br address`), "
            "NCCL_SOCKET_IFNAME likewise\n"
        )
        sys.stderr.flush()
        os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def lines(job: Job, findings: Mapping[str, Finding]) -> list[str]:
    """Versions, then one line per check; each fault and warning with its fix below."""
    versions = ", ".join(f"{name} {text}" for name, text in job.first.software.versions.items())
    width = max(map(len, findings))
    text = [versions]
    for name, one in findings.items():
        text.append(f"{one.verdict:<5}  {name:<{width}}  {one.found}")
        if one.mend:
            text.append(f"{'':<5}  {'':<{width}}  fix: {one.mend}")
    counts = Counter(one.verdict for one in findings.values())
    able = "training cannot work" if counts["fault"] else "training can work"
    text.append(f"{able}: faults {counts['fault']}, warnings {counts['warn']}")
    return text


def _as_json(job: Job, findings: Mapping[str, Finding]) -> str:
    return json.dumps(
        {
            "verdict": worst(findings.values()).verdict,
            "findings": {name: asdict(one) for name, one in findings.items()},
            "ranks": [asdict(one) for one in job.ranks],
        },
        indent=1,
    )
