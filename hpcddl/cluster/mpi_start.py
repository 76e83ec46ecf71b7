"""Sets Open MPI's parameters before it starts, unless the user has set them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from hpcddl.cluster.launcher import one_node

_YIELD = "OMPI_MCA_mpi_yield_when_idle"
_BTL = "OMPI_MCA_btl"
_WITHOUT_OFI = "^ofi"
# What hpcddl set itself. A command that starts others hands it on: to them it is no user's choice.
_OURS = "HPCDDL_SET_BTL"
# Networks of libfabric: InfiniBand, Omni-Path, RoCE and AWS's EFA; HPE's Slingshot; Cray's Aries.
_FABRICS = ("sys/class/infiniband", "sys/class/cxi", "sys/class/gni")


def prepare(environment: MutableMapping[str, str], root: Path = Path("/")) -> None:
    """Sets parameters with which this rank starts and waits well; call it before MPI starts.

    Args:
        environment: of this process; changed in place. What the user has set stands.
        root: where /sys and Open MPI's files of parameters are looked for (tests).
    """
    _wait_politely(environment)
    ours = environment.pop(_OURS, None)
    if ours is not None and environment.get(_BTL) == ours:
        del environment[_BTL]
    if not _why_kept(environment, root):
        environment[_BTL] = environment[_OURS] = _WITHOUT_OFI


def describe(environment: Mapping[str, str], root: Path = Path("/")) -> str:
    """Whether Open MPI looks for libfabric's networks, and why, after `prepare`."""
    if _OURS in environment:
        why = "one node" if one_node(environment) else "no fabric here"
        return f"ofi left out ({why}), which saves a second per start"
    return f"ofi as it comes ({_why_kept(environment, root)})"


def waits_politely(environment: Mapping[str, str]) -> bool:
    """Whether this rank leaves its core to others while it waits, after `prepare`."""
    return environment.get(_YIELD, "0") not in ("0", "false", "no")


def _wait_politely(environment: MutableMapping[str, str]) -> None:
    """Tells Open MPI to give up the core while it waits, where a rank has fewer than two.

    Horovod's thread waits inside MPI beside the one that computes, so every rank needs two cores
    or a wait that yields.
    """
    ranks = int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", "0"))
    if len(os.sched_getaffinity(0)) < 2 * ranks:
        environment.setdefault(_YIELD, "1")


def _why_kept(environment: Mapping[str, str], root: Path) -> str:
    """Why Open MPI's component for libfabric is kept; empty if it would only cost time.

    It looks for one-sided messages' networks for a second in every MPI_Init (Open MPI 5.0.11 of
    PyPI). Nothing uses what it finds where all ranks share a node, and it finds nothing where the
    node has no device of such a network. Messages through libfabric itself (the `mtl` of the same
    name) are not touched.
    """
    if _BTL in environment:
        return f"{_BTL}={environment[_BTL]}"
    for path in _parameter_files(environment, root):
        if _sets_btl(path):
            return f"btl is set in {path}"
    if one_node(environment):
        return ""
    found = [name for name in _FABRICS if any((root / name).glob("*"))]
    return f"several nodes, with /{found[0]}" if found else ""


def _parameter_files(environment: Mapping[str, str], root: Path) -> list[Path]:
    """Where Open MPI takes parameters from that the environment would overrule."""
    files = [root / "etc/openmpi/openmpi-mca-params.conf"]
    if "HOME" in environment:
        files.append(Path(environment["HOME"]) / ".openmpi/mca-params.conf")
    mpirun = shutil.which("mpirun", path=environment.get("PATH"))
    if mpirun:
        files.append(Path(mpirun).resolve().parent.parent / "etc/openmpi-mca-params.conf")
    return files + [
        Path(p) for p in environment.get("OMPI_MCA_mca_base_param_files", "").split(":") if p
    ]


def _sets_btl(path: Path) -> bool:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return False
    return any(line.partition("=")[0].strip() == "btl" for line in lines)
