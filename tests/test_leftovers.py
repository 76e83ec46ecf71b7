"""What killed commands leave is found and removed by the next; outputs are never half there."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcddl.common import folders
from hpcddl.common.errors import UserError
from hpcddl.common.files import write_whole
from hpcddl.common.folders import put_in_place, whole_folder
from hpcddl.common.leftovers import leftovers, make_temporary_folder, temporary_path
from hpcddl.common.picture_file import picture_file
from tests.conftest import ROOT, Launch, environment

HOST = socket.gethostname()
GONE = 4194999  # above the largest number that Linux gives a process


def left(path: Path, host: str = HOST, process: int = GONE, what: str = "partial") -> Path:
    return path.with_name(f".{path.name}.{host}.{process}.{what}")


def test_who_is_gone_has_left_it(tmp_path: Path) -> None:
    """Of this machine by its process; of another, after a day without a change."""
    path = tmp_path / "a[1]*.b"
    old, young = left(path, "far.away.org", 7), left(path, "other", 7)
    nested, other = left(path, "third", 9), left(tmp_path / "a1x.b")
    for one in (left(path), left(path, process=os.getppid()), old, young, other):
        one.touch()
    nested.mkdir()
    (nested / "fresh").touch()
    day_before = time.time() - 90000
    for one in (old, nested):
        os.utime(one, (day_before, day_before))
    assert set(leftovers(path)) == {left(path), old}
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert not left(path).exists()
    assert not old.exists()
    assert all(one.exists() for one in (young, nested, other, left(path, process=os.getppid())))


def test_long_names(tmp_path: Path) -> None:
    """As long as the file system takes; what is left of one is not another's."""
    one, other = (tmp_path / (255 * letter) for letter in "ab")
    write_whole(one, b"1")
    dead = Path(str(temporary_path(one)).replace(f".{os.getpid()}.", f".{GONE}."))
    dead.touch()
    write_whole(other, b"2")
    assert leftovers(one) == [dead]
    write_whole(one, b"3")
    assert sorted(os.listdir(tmp_path)) == [one.name, other.name]


def test_a_process_that_nobody_has_waited_for_is_gone(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    left(tmp_path / "x", process=ended.pid).touch()
    assert leftovers(tmp_path / "x")
    ended.wait()


def make(out: Path, text: str, overwrite: bool = True) -> None:
    with whole_folder(out, "mark", overwrite) as folder:
        (folder / "mark").write_text(text)


@pytest.mark.parametrize("exchanges", [True, False], ids=["in one step", "in two"])
def test_a_folder_is_replaced(
    tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On file systems that exchange two names, and on others."""
    if not exchanges:
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    for text in ("1", "2"):
        make(tmp_path / "out", text)
        assert (tmp_path / "out" / "mark").read_text() == text
        assert os.listdir(tmp_path) == ["out"]


def test_a_folder_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="holds no mark"):
        make(tmp_path / "out", "1")
    make(tmp_path / "new", "1")
    with pytest.raises(UserError, match="exists already"):
        make(tmp_path / "new", "2", overwrite=False)
    assert sorted(os.listdir(tmp_path)) == ["new", "out"]


def test_readers_see_the_old_or_the_new_one(tmp_path: Path) -> None:
    """While one process replaces a folder again and again, another always finds a whole one."""
    out = tmp_path / "out"
    make(out, "0")
    code = """
import sys
from pathlib import Path
from tests.test_leftovers import make
for turn in range(300):
    make(Path(sys.argv[1]), str(turn))
"""
    if not folders._exchange(out, out):
        pytest.skip("this file system does not exchange names")
    with subprocess.Popen([sys.executable, "-c", code, out], cwd=ROOT, env=environment()) as writer:
        seen = set()
        while writer.poll() is None:
            seen.add((out / "mark").read_text())
    assert writer.returncode == 0
    assert len(seen) > 3


def test_an_old_folder_comes_back_where_its_replacement_never_came(tmp_path: Path) -> None:
    """A kill between two renames, on a file system that cannot do both at once."""
    out = tmp_path / "out"
    make(left(out, what="old"), "1")
    left(out).mkdir()
    with pytest.raises(UserError, match="exists already"):
        make(out, "2", overwrite=False)
    assert (out / "mark").read_text() == "1"
    make(left(out, what="old"), "0")
    make(out, "2")
    assert (out / "mark").read_text() == "2"
    assert os.listdir(tmp_path) == ["out"]


def test_what_cannot_be_removed_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On NFS a file that another process has open keeps its folder; the new one is in place."""
    make(tmp_path / "out", "1")
    make(tmp_path / "new", "2")

    def busy(path: Path) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(folders.shutil, "rmtree", busy)
    put_in_place(tmp_path / "new", tmp_path / "out")
    assert (tmp_path / "out" / "mark").read_text() == "2"
    assert "cannot be removed: Device or resource busy" in capsys.readouterr().err


def test_a_picture_is_whole_or_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with picture_file(path, "--out", (1, 1), 50) as figure:
        figure.subplots()
    before = path.read_bytes()
    with picture_file(path, "--out", (1, 1), 50) as figure:
        # Drawn only when it is saved.
        figure.subplots().text(0, 0, "$x$").draw = lambda *_: 1 / 0
        with pytest.raises(ZeroDivisionError):
            figure.savefig(tmp_path / "b.png")
        figure.clear()
    assert path.read_bytes() != before
    assert not list(tmp_path.glob(".a*"))


def test_temporary_folders_of_killed_commands(tmp_path: Path) -> None:
    made = make_temporary_folder(tmp_path, "work")
    dead = tmp_path / made.name.replace(str(os.getpid()), str(GONE))
    made.rename(dead)
    own = make_temporary_folder(tmp_path, "work")
    assert os.listdir(tmp_path) == [own.name]
    assert make_temporary_folder(tmp_path, "work") != own


@pytest.mark.parametrize("kind", ["mnist", "kaldi"])
def test_a_killed_prep_leaves_nothing_to_the_next(
    tmp_path: Path, kind: str, command: Launch
) -> None:
    """Killed while it writes, and while it puts the set in place of an earlier one."""
    words = ["prep", "mnist", "--synthetic", "60"]
    if kind == "kaldi":
        assert command("prep", "mini-corpus", tmp_path / "mini").returncode == 0
        data, ali = tmp_path / "mini" / "data", tmp_path / "mini" / "ali"
        words = ["prep", "kaldi", "--data", str(data), "--ali", str(ali)]
    out = tmp_path / "sets" / "o"
    words += ["--out", str(out), "--overwrite"]
    assert command(*words).returncode == 0
    before = (out / "manifest.json").read_bytes()
    for function in ("hpcddl.data.manifest.write_manifest", "hpcddl.common.folders.put_in_place"):
        for after in (False, True):
            killed = subprocess.run(
                [sys.executable, "-c", KILLED, function, str(int(after)), *words],
                cwd=ROOT,
                env=environment(),
                capture_output=True,
                check=False,
            )
            assert killed.returncode == -signal.SIGKILL, killed.stderr
            assert (out / "manifest.json").read_bytes() == before
    assert command(*words).returncode == 0
    assert os.listdir(out.parent) == ["o"]


KILLED = """
import importlib, os, sys
place, after, *words = sys.argv[1:]
module, _, name = place.rpartition(".")
real = getattr(importlib.import_module(module), name)
import data_prep.packing, data_prep.sample_set, hpcddl.common.folders, hpcddl.data.shard_writer
def kill(*arguments):
    if after == "1":
        real(*arguments)
    os.kill(os.getpid(), 9)
for user in list(sys.modules.values()):
    if getattr(user, name, None) is real:
        setattr(user, name, kill)
from hpcddl.cli import main
main(words)
"""
