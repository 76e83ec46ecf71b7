"""jobs/prep.sbatch under a real Slurm: an array packs, a last job verifies and finishes."""

import sys
from pathlib import Path

from hpcddl.data.verify import verify
from tests.conftest import ROOT
from tests.slurm.cluster import Cluster, wait_until


def submit(cluster: Cluster, folder: Path, *words: object) -> str:
    """Submits from `folder`, with this Python's commands in reach, and waits for all jobs."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    sbatch = ("sbatch", "--parsable", f"--export=ALL,PATH={path}", f"--chdir={folder}")
    done = cluster.run(*sbatch, "--array=1-3", ROOT / "jobs" / "prep.sbatch", *words)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: cluster.run("squeue", "-h").stdout == "", seconds=120)
    return "".join(sorted(path.read_text() for path in folder.glob("*.out")))


def test_an_array_packs_and_merges(cluster: Cluster, tmp_path: Path, command) -> None:
    """The set is that of one process; stopped half-way, the same submission finishes it."""
    corpus = tmp_path / "a corpus"
    generated = command("prep", "mini-corpus", corpus, "--utterances", 12, "--speakers", 4)
    assert generated.returncode == 0
    words = ("--data", corpus / "data", "--ali", corpus / "ali", "--windows-per-shard", 20)
    assert command("prep", "kaldi", *words, "--out", tmp_path / "one").returncode == 0
    out = ("--out", tmp_path / "set")
    # As if the first job's time had run out after its last shard.
    assert command("prep", "kaldi", *words, *out, "--job", "1/3").returncode == 0
    printed = submit(cluster, tmp_path, *words, *out)
    assert "job 1 of 3: 0 shards packed" in printed
    assert "job 3 of 3: " in printed
    one, packed = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "set")
    )
    assert one == packed
    verify(tmp_path / "set")
    assert f"{tmp_path / 'set'}: 300 classes" in printed


def test_a_failed_array_leaves_no_waiting_merge(cluster: Cluster, tmp_path: Path) -> None:
    """Nothing stays in the queue, and nothing of the output is there."""
    printed = submit(cluster, tmp_path, "--data", tmp_path, "--ali", tmp_path, "--out", "set")
    assert "hpcddl: error: " in printed
    assert not (tmp_path / "set").exists()


def test_without_an_array_it_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    output = tmp_path / "job.out"
    words = ("sbatch", f"--output={output}", f"--chdir={tmp_path}", "jobs/prep.sbatch")
    assert cluster.run(*words).returncode == 0
    wait_until(lambda: cluster.run("squeue", "-h").stdout == "")
    assert "submit it as an array of 1 to N" in output.read_text()
