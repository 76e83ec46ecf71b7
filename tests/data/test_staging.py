"""Staging: one whole copy per node, whoever is killed, comes second or runs out of room."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from hpcddl.common.errors import UserError
from hpcddl.data import node_lock as lock_module
from hpcddl.data.manifest import MANIFEST
from hpcddl.data.node_lock import node_lock
from hpcddl.data.shards import open_split
from hpcddl.data.staging import stage_here, staged_path
from tests.conftest import ROOT, environment, run_python
from tests.synthetic import write_recipe, write_shards

STAGE = """
import sys, time
from pathlib import Path
from hpcddl.data import staging, verified_copy
source, folder, slow = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
write = verified_copy._write
def slowly(*arguments):
    time.sleep(slow)
    write(*arguments)
verified_copy._write = slowly
print(staging.stage_here(source, folder, shown=True))
"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """The node's own disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


def same_bytes(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def start(source: Path, disk: Path, slow: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STAGE, str(source), str(disk), str(slow)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_copy_has_the_same_bytes_and_serves_the_next_job(make, disk, capsys):
    """Named by the manifest; found again without copying; nothing else in the folder."""
    folder = make().folder
    copy = stage_here(folder, disk, shown=True)
    assert list(disk.iterdir()) == [copy]
    assert same_bytes(folder, copy)
    assert capsys.readouterr().out.startswith("staged 0.0")
    before = copy.stat().st_ino
    assert stage_here(folder, disk, shown=True) == copy
    assert copy.stat().st_ino == before
    assert capsys.readouterr().out == f"staged before: {copy}\n"
    other = make(windows=31, name="other").folder
    assert stage_here(other, disk, shown=False) != copy
    assert len(list(disk.iterdir())) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("fault", ["missing", "cut", "altered", "no manifest", "names"])
def test_a_damaged_copy_is_replaced(make, disk, fault):
    """As when a site's cleaner has removed some files; who has it open goes on reading."""
    made = make()
    copy = stage_here(made.folder, disk, shown=False)
    split = open_split(copy, "train")
    split.batch(np.arange(53))
    path = copy / "train-00001.h5"
    if fault == "missing":
        path.unlink()
    elif fault == "cut":
        os.truncate(path, 1000)
    elif fault == "altered":
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    elif fault == "no manifest":
        (copy / MANIFEST).unlink()
    else:
        (copy / "train.utt2spk").write_text("a s\n")
    assert stage_here(made.folder, disk, shown=False) == copy
    assert same_bytes(made.folder, copy)
    assert list(disk.iterdir()) == [copy]
    if fault != "cut":
        assert (split.batch(np.arange(53))[1].numpy() == made.labels).all()


@pytest.mark.parametrize("where", ["structure", "features", "text", "cut", "longer"])
def test_a_damaged_source_is_named_and_nothing_stays(make, disk, where):
    """Checksums are compared while copying."""
    folder = make().folder
    path = folder / ("train.utt2spk" if where == "text" else "train-00001.h5")
    content = bytearray(path.read_bytes())
    content[{"structure": 500, "features": 5000}.get(where, 0)] ^= 1
    if where == "cut":
        content = content[:-1]
    elif where == "longer":
        content[0] ^= 1
        content += b"x"
    path.write_bytes(content)
    with pytest.raises(UserError, match=path.name):
        stage_here(folder, disk, shown=False)
    assert list(disk.iterdir()) == []


def test_too_little_room_is_told_before_the_copy(make, disk, monkeypatch):
    """One line with both sizes; nothing is left behind."""
    folder = make().folder
    usage = shutil.disk_usage(disk)._replace(free=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"the set has 0\.0\d\d GB, but only 0\.000 GB are free"):
        stage_here(folder, disk, shown=False)
    assert list(disk.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing(make, disk):
    """A limit on the size of files stands in for it."""
    folder = make().folder
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n" + STAGE
    done = run_python("-c", code, folder, disk, 0)
    assert f"hpcddl.common.errors.UserError: --stage: {disk}/.hpcddl-" in done.stderr
    assert "train-0000" in done.stderr
    assert "File too large" in done.stderr
    assert list(disk.iterdir()) == []


def test_a_full_file_system_leaves_nothing(make, tmp_path, monkeypatch):
    """A real one of 64 KiB, whose free space is misjudged as when others fill it meanwhile."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mounted],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    try:
        folder = make(windows=800, per_shard=300).folder
        with pytest.raises(UserError, match=r"the set has 0\.\d+ GB, but only 0\.000 GB are free"):
            stage_here(folder, mounted, shown=False)
        usage = shutil.disk_usage(mounted)._replace(free=1 << 40)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(UserError, match=r"--stage: .*: No space left on device"):
            stage_here(folder, mounted, shown=False)
        assert list(mounted.iterdir()) == []
    finally:
        subprocess.run(["umount", mounted], check=True)


def copying(source: Path, disk: Path) -> subprocess.Popen[str]:
    """Another process that is in the middle of its copy, and will be for about a second."""
    process = start(source, disk, slow=0.1)
    while not list(disk.glob(".hpcddl-*/*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def test_two_jobs_at_once_make_one_copy(make, disk, capsys):
    """The second waits for the first, says so, and copies nothing."""
    folder = make().folder
    first = copying(folder, disk)
    copy = stage_here(folder, disk, shown=True)
    output = first.communicate(timeout=60)
    assert first.returncode == 0, output
    assert "GB/s" in output[0]
    assert capsys.readouterr().out == f"waiting for another job that stages {copy}\n"
    assert list(disk.iterdir()) == [copy]
    assert same_bytes(folder, copy)


@pytest.mark.parametrize("waiting", [False, True])
def test_a_killed_copy_is_never_trusted(make, disk, waiting, capsys):
    """SIGKILL leaves a partial copy and a lock that nobody holds; the next job mends both."""
    folder = make().folder
    first = copying(folder, disk)
    if waiting:
        threading.Timer(0.3, first.kill).start()
    else:
        first.kill()
        first.communicate()
        assert not staged_path(folder, disk).exists()
        assert list(disk.glob(".hpcddl-*.partial"))
    copy = stage_here(folder, disk, shown=True)
    said = capsys.readouterr().out.splitlines()
    assert ["waiting" in text for text in said] == [True, False][not waiting :]
    assert list(disk.iterdir()) == [copy]
    assert same_bytes(folder, copy)
    first.communicate()
    assert first.returncode == -signal.SIGKILL


@pytest.fixture
def another_user(tmp_path):
    """Inside, this process is a user without rights, on a disk on which all may write, as /tmp."""
    if os.geteuid():
        pytest.skip("must be root to become another user")
    shared = Path(tempfile.mkdtemp())
    shared.chmod(0o1777)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o755)
    os.seteuid(65534)
    yield shared
    os.seteuid(0)
    shutil.rmtree(shared)


@pytest.mark.parametrize("what", ["whole", "altered", "closed", "partial", "lock"])
def test_what_other_users_have_left(make, another_user, what):
    """A whole copy is used, whoever made it; all else of theirs is left alone."""
    os.seteuid(0)
    folder, disk = make().folder, another_user
    copy = stage_here(folder, disk, shown=False)
    if what == "altered":
        path = copy / "train-00001.h5"
        path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    elif what == "closed":
        copy.chmod(0o700)
    elif what == "partial":
        copy.rename(disk / f".{copy.name}.{socket.gethostname()}.4194999.partial")
    elif what == "lock":
        shutil.rmtree(copy)
        (disk / f".{copy.name}.0.lock").touch(0o600)
    before = set(disk.iterdir())
    os.seteuid(65534)
    found = stage_here(folder, disk, shown=False)
    assert stage_here(folder, disk, shown=False) == found
    assert (found.stat().st_uid == 0) == (what == "whole")
    os.seteuid(0)
    assert same_bytes(folder, found)
    assert set(disk.iterdir()) == before | {found}


def test_a_holder_that_does_not_get_on_is_an_error(tmp_path, monkeypatch):
    """One line that names the lock, instead of a job that hangs."""
    monkeypatch.setattr(lock_module, "STALLED_SECONDS", 0.3)
    path, told = tmp_path / "lock", []
    with (
        node_lock(path, lambda: 0, lambda: None),
        pytest.raises(UserError, match="lock: held by another process"),
        node_lock(path, lambda: 0, lambda: told.append(1)),
    ):
        pass
    assert told == [1]
    assert not path.exists()
    grows = list(range(8))
    with (
        node_lock(path, lambda: 0, lambda: None),
        pytest.raises(IndexError),  # as long as it grows, nobody gives up
        node_lock(path, grows.pop, lambda: None),
    ):
        pass


def test_a_missing_folder_and_an_unset_variable(make, tmp_path, command):
    with pytest.raises(UserError, match=r"--stage .*/none: no such folder"):
        stage_here(make().folder, tmp_path / "none", shown=False)
    recipe = write_recipe(tmp_path / "r.yaml", make(name="b").folder, "ssgd")
    done = command("train", recipe, "--stage", "")
    assert done.returncode == 2
    assert "--stage: no folder given; is the variable set?" in done.stderr


FAKED_NODES = """
import sys
from pathlib import Path
from hpcddl.data import staging
from hpcddl.common.errors import UserError
from hpcddl.cluster.world import World
world = World.create(node_size=int(sys.argv[3]))
node = world.rank // int(sys.argv[3])
copied = []
stage_here = staging.stage_here
def counted(source, folder, shown):
    copied.append(folder)
    return stage_here(source, folder, shown=shown)
staging.stage_here = counted
try:
    with world.failing_together():
        path = staging.stage(world, Path(sys.argv[1]), Path(sys.argv[2]) / f"node{node}")
except UserError as error:
    sys.stdout.write(f"rank {world.rank} refused: {error}\\n")
    raise SystemExit(2)
sys.stdout.write(f"rank {world.rank} copied {len(copied)} {path.parent.name}\\n")
"""


def test_one_rank_of_each_node_copies(make, tmp_path):
    """Four ranks on two nodes: each reads its own node's copy."""
    folder, node_size = make().folder, 2
    for node in range(2):
        (tmp_path / f"node{node}").mkdir()
    done = run_python("-c", FAKED_NODES, folder, tmp_path, node_size, ranks=4)
    assert done.returncode == 0, done.stderr
    lines = sorted(line for line in done.stdout.splitlines() if line.startswith("rank"))
    assert lines == [
        f"rank {rank} copied {int(rank % node_size == 0)} node{rank // node_size}"
        for rank in range(4)
    ]
    for node in range(2):
        assert same_bytes(folder, staged_path(folder, tmp_path / f"node{node}"))


def test_a_failure_on_one_node_is_every_ranks(make, tmp_path):
    """Node 1 has no such folder: all ranks say so and end, none hangs."""
    (tmp_path / "node0").mkdir()
    done = run_python("-c", FAKED_NODES, make().folder, tmp_path, 1, ranks=2)
    assert done.returncode == 2
    for rank in range(2):
        assert f"rank {rank} refused: --stage {tmp_path}/node1: no such folder" in done.stdout


def test_training_from_a_copy_is_the_same_training(hpcddl, tmp_path, disk):
    """Same weights to the bit; the run's config names the set, not its copy."""
    shards = write_shards(tmp_path / "shards")
    recipe = write_recipe(tmp_path / "recipe.yaml", shards, "ssgd")
    blocks = ["epochs=1", "data.shuffle=blocks", "data.block=8", "data.buffer=24"]
    sums = []
    for name, words in (("plain", []), ("staged", ["--stage", disk])):
        run = tmp_path / name
        done = hpcddl("train", recipe, *blocks, "--out", run, *words, ranks=2)
        assert done.returncode == 0, done.stderr
        assert ("staged 0.0" in done.stdout) == (name == "staged")
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert config["data"]["path"] == str(shards)
        sums.append(yaml.safe_load((run / "summary.json").read_text())["weights_sha256"])
    assert sums[0] == sums[1]
    (path,) = disk.iterdir()
    assert same_bytes(shards, path)
    path.joinpath("train-00000.h5").unlink()
    os.truncate(shards / "train-00000.h5", 100)
    done = hpcddl("train", recipe, "--out", tmp_path / "bad", "--stage", disk, ranks=2)
    assert done.returncode == 2
    assert done.stderr.count("hpcddl: error:") == 1
    assert f"{shards}/train-00000.h5: shorter than the manifest says" in done.stderr
    assert list(disk.iterdir()) == [path]
