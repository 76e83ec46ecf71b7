"""Packing by any number of jobs, stopped anywhere and started again: always the same bytes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcddl.data.verify import verify
from tests.conftest import ROOT, environment

WORDS = ("--windows-per-shard", 7, "--heldout-speakers", "spk0002")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def options(corpus: Path, out: Path) -> list[object]:
    return ["--data", corpus / "data", "--ali", corpus / "ali", "--out", out, *WORDS]


@pytest.fixture
def whole(corpus, command, tmp_path) -> dict[str, bytes]:
    """What one process makes."""
    assert command("prep", "kaldi", *options(corpus, tmp_path / "whole")).returncode == 0
    return contents(tmp_path / "whole")


@pytest.mark.parametrize("jobs", [1, 2, 3, 40])
def test_any_number_of_jobs_gives_the_same_bytes(corpus, command, tmp_path, whole, jobs):
    """In any order, and also when there are more jobs than shards."""
    words = options(corpus, tmp_path / "set")
    for job in reversed(range(1, jobs + 1)):
        done = command("prep", "kaldi", *words, "--job", f"{job}/{jobs}")
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "set").exists()
    done = command("prep", "kaldi", *words, "--merge")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "set") == whole
    assert not (tmp_path / ".set.packing").exists()
    verify(tmp_path / "set")


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_give_the_same_bytes(corpus, hpcddl, tmp_path, whole, ranks):
    done = hpcddl("prep", "kaldi", *options(corpus, tmp_path / "set"), ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "set") == whole
    assert done.stdout.count("train: ") == 1


def test_an_error_on_one_rank_ends_all(corpus, hpcddl, tmp_path):
    """The cut archive's last utterance is one rank's; the others do not wait for it."""
    scp = corpus / "data" / "feats.scp"
    ark = Path(scp.read_text().split()[1].rsplit(":", 1)[0])
    (corpus / "cut.ark").write_bytes(ark.read_bytes()[:-1])
    scp.write_text(scp.read_text().replace(str(ark), str(corpus / "cut.ark")))
    done = hpcddl("prep", "kaldi", *options(corpus, tmp_path / "set"), ranks=2, timeout=60)
    assert done.returncode == 2, done.stderr
    assert re.search(r"spk0003-utt000011: .*cut.ark:\d+: cut", done.stderr)
    assert not (tmp_path / "set").exists()


def test_a_rerun_does_only_what_is_missing(corpus, command, tmp_path, whole):
    """Also with another number of jobs; a cut shard and one without a record are missing."""
    words = options(corpus, tmp_path / "set")
    assert command("prep", "kaldi", *words, "--job", "1/2").returncode == 0
    folder = tmp_path / ".set.packing"
    shards = sorted(folder.glob("*.h5"))
    assert len(shards) > 4
    os.truncate(shards[0], 50)
    (folder / f"{shards[1].name}.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in shards[2:]}
    refused = command("prep", "kaldi", *words, "--merge")
    assert refused.returncode == 2
    assert "shards are not packed yet (train-00000.h5, train-00001.h5, " in refused.stderr
    done = command("prep", "kaldi", *words, "--job", "1/1")
    missing = len([name for name in whole if name.endswith(".h5")]) - len(before)
    assert f"{missing} shards packed, {len(before)} were there" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in shards[2:]} == before
    assert command("prep", "kaldi", *words).returncode == 0
    assert contents(tmp_path / "set") == whole


@pytest.mark.thorough
def test_a_killed_packing_goes_on(corpus, command, tmp_path, whole):
    """SIGKILL at any moment leaves whole shards only; the same command finishes the same set."""
    words = [str(word) for word in ("prep", "kaldi", *options(corpus, tmp_path / "set"))]
    folder = tmp_path / ".set.packing"
    # Slowed down, so that there is a moment to hit.
    code = (
        "import sys, time, data_prep.kaldi.pack as m; from hpcddl.cli import main\n"
        "old = m.Packing.add\n"
        "m.Packing.add = lambda *a: (old(*a), time.sleep(0.2))\n"
        "main(sys.argv[1:])"
    )
    for wanted in (2, 4):
        job = subprocess.Popen([sys.executable, "-c", code, *words], env=environment(), cwd=ROOT)
        end = time.monotonic() + 60
        while len(list(folder.glob("*.h5.json"))) < wanted and time.monotonic() < end:
            time.sleep(0.02)
        job.send_signal(signal.SIGKILL)
        job.wait()
        assert wanted <= len(list(folder.glob("*.h5.json"))) < len(whole) - 4
        assert not (tmp_path / "set").exists()
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "set") == whole


def test_finished_shards_survive_an_error(corpus, command, tmp_path, whole):
    """A bad utterance near the end; mended, the same command packs the rest."""
    scp = corpus / "data" / "feats.scp"
    ark = Path(scp.read_text().split()[1].rsplit(":", 1)[0])
    good, bad = ark.read_bytes(), corpus / "moved.ark"
    bad.write_bytes(good[:-1])
    scp.write_text(scp.read_text().replace(str(ark), str(bad)))
    words = options(corpus, tmp_path / "set")
    done = command("prep", "kaldi", *words)
    assert done.returncode == 2
    assert "the finished shards are kept in" in done.stderr
    bad.write_bytes(good)
    assert command("prep", "kaldi", *words).returncode == 0
    got = contents(tmp_path / "set")
    assert {n: b for n, b in got.items() if n.endswith(".h5")} == {
        n: b for n, b in whole.items() if n.endswith(".h5")
    }


def test_other_options_or_inputs_are_refused(corpus, command, tmp_path):
    """Half of one set and half of another would be a set that nobody asked for."""
    words = options(corpus, tmp_path / "set")
    assert command("prep", "kaldi", *words, "--job", "1/2").returncode == 0
    for more, message in (
        (["--dtype", "float32"], "an unfinished packing with dtype float16, now float32"),
        (["--seed", "3"], "with seed 0, now 3"),
        (["--hop", "3"], "with hop 21, now 3"),
    ):
        done = command("prep", "kaldi", *words, *more, "--job", "2/2")
        assert done.returncode == 2
        assert message in done.stderr
        assert "remove the folder to start over" in done.stderr
    os.utime(corpus / "ali" / "ali.1.gz", ns=(5, 5))
    done = command("prep", "kaldi", *words, "--merge")
    assert done.returncode == 2
    assert re.search(r"with \S*ali.1.gz \[\d+, \d+\], now \[\d+, 5\]", done.stderr)


def test_dry_run_says_how_much_and_writes_nothing(corpus, command, tmp_path, whole):
    before = sorted(tmp_path.rglob("*"))
    done = command("prep", "kaldi", *options(corpus, tmp_path / "set"), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    manifest = verify(tmp_path / "whole")
    windows = sum(split.samples for split in manifest.splits.values())
    size = windows * 21 * 39 * 2
    assert (
        f"{windows} windows of 21 x 39 in float16: {size / 1e9:.3g} GB of features" in done.stdout
    )
    assert f"{manifest.splits['train'].samples} windows" in done.stdout


def test_a_plan_serves_the_jobs(corpus, command, tmp_path, whole):
    words = options(corpus, tmp_path / "set")
    done = command("prep", "kaldi", *words, "--plan")
    assert done.returncode == 0
    assert "windows of 21 x 39" in done.stdout
    plan = tmp_path / ".set.packing" / "plan.json"
    made = plan.stat().st_mtime_ns
    assert command("prep", "kaldi", *words, "--job", "1/1").returncode == 0
    assert plan.stat().st_mtime_ns == made
    assert command("prep", "kaldi", *words, "--merge").returncode == 0
    assert contents(tmp_path / "set") == whole


def test_a_mistyped_option_destroys_no_plan(corpus, command, tmp_path, whole):
    """Nor does a broken corpus: other jobs may be at work in the folder on their first shards."""
    words = options(corpus, tmp_path / "set")
    assert command("prep", "kaldi", *words, "--plan").returncode == 0
    plan = {path.name for path in (tmp_path / ".set.packing").iterdir()}
    for more in (["--seed", "3"], ["--seed", "3", "--plan"]):
        done = command("prep", "kaldi", *words, *more)
        assert done.returncode == 2
        assert "finished shards are kept" not in done.stderr
        assert {path.name for path in (tmp_path / ".set.packing").iterdir()} == plan
    scp = corpus / "data" / "feats.scp"
    ark = Path(scp.read_text().split()[1].rsplit(":", 1)[0])
    times = scp.stat()
    good = scp.read_text()
    scp.write_text(good.replace(str(ark), str(ark)[:-1] + "x"))
    os.utime(scp, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert command("prep", "kaldi", *words).returncode == 2
    assert plan <= {path.name for path in (tmp_path / ".set.packing").iterdir()}
    scp.write_text(good)
    os.utime(scp, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert command("prep", "kaldi", *words).returncode == 0
    assert contents(tmp_path / "set") == whole


@pytest.mark.parametrize("name", ["plan.json", "plan.npz"])
def test_a_garbled_plan_is_named(corpus, command, tmp_path, name):
    """One line and what to do, for any damage to either file."""
    words = options(corpus, tmp_path / "set")
    assert command("prep", "kaldi", *words, "--plan").returncode == 0
    path = tmp_path / ".set.packing" / name
    good = path.read_bytes()
    for bad in (b"", good[: len(good) // 2], b"{}", b"[]"):
        path.write_bytes(bad)
        done = command("prep", "kaldi", *words, "--job", "1/1")
        assert done.returncode == 2
        assert "whose plan cannot be read" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("word", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2"])
def test_jobs_that_cannot_be(corpus, command, tmp_path, word):
    done = command("prep", "kaldi", *options(corpus, tmp_path / "set"), f"--job={word}")
    assert done.returncode == 2
    assert f"--job: {word!r}: must be K/N with 1 <= K <= N" in done.stderr


def test_merge_before_any_job(corpus, command, tmp_path):
    done = command("prep", "kaldi", *options(corpus, tmp_path / "set"), "--merge")
    assert done.returncode == 2
    assert "nothing packed yet" in done.stderr
