"""How facts are read from what Linux says."""

from pathlib import Path

import pytest

from hpcddl.cluster.mpi_library import mapped
from hpcddl.doctor.between import filesystem_of
from hpcddl.doctor.machine import memory_limit_bytes

MOUNTS = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
40 22 0:44 / /home rw shared:1 master:2 - nfs4 server:/home rw
41 22 0:45 / /scratch rw - ext4 /dev/sdb rw
42 41 0:46 / /scratch rw - lustre 10.0.0.1@o2ib:/fs rw
43 22 0:47 / /with\\040space rw - beegfs beegfs_nodev rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/etc/x", "ext4"),
        ("/home/me/runs", "nfs4"),
        ("/homes", "ext4"),
        ("/scratch/me", "lustre"),  # mounted over the other
        ("/with space/runs", "beegfs"),
    ],
)
def test_filesystem(path: str, kind: str) -> None:
    assert filesystem_of(Path(path), MOUNTS) == kind


def test_memory_limit_of_version_2(tmp_path: Path) -> None:
    """The lowest on the way up, a parent's included; "max" is none."""
    step = tmp_path / "slurm/job_1/step_0"
    step.mkdir(parents=True)
    (step / "memory.max").write_text("max\n")
    assert memory_limit_bytes("0::/slurm/job_1/step_0\n", tmp_path) is None
    (step.parent / "memory.max").write_text("4096\n")
    (step.parent.parent / "memory.max").write_text("8192\n")
    assert memory_limit_bytes("0::/slurm/job_1/step_0\n", tmp_path) == 4096


def test_memory_limit_of_version_1(tmp_path: Path) -> None:
    group = tmp_path / "memory/slurm/job_1"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("1000\n")
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    membership = "5:cpuset:/slurm\n4:memory:/slurm/job_1\n0::/\n"
    assert memory_limit_bytes(membership, tmp_path) == 1000


def test_mapped_libraries() -> None:
    """Each file once, MPI's only."""
    maps = """\
7f0 r-xp 00 08:01 1  /opt/a/lib/libmpi.so.40.30.6
7f1 r--p 00 08:01 1  /opt/a/lib/libmpi.so.40.30.6
7f2 r-xp 00 08:01 2  /opt/b/lib/libmpi.so.12
7f3 r-xp 00 08:01 3  /opt/a/lib/libmpi_mpifh.so.40
7f4 rw-p 00 00:00 0
"""
    assert mapped(maps) == ("/opt/a/lib/libmpi.so.40.30.6", "/opt/b/lib/libmpi.so.12")
