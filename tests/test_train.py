"""The whole command on real ranks: what it writes, how it resumes, how it fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hpcddl.commands.train import default_folder
from hpcddl.run.state import read_state
from tests.conftest import ROOT, Launch, environment, mpirun_command, run_python
from tests.synthetic import CLASSES, write_recipe, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards")


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == kind]


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("seconds", "time")}


@pytest.mark.parametrize("strategy", ["ssgd", "{name: dpsgd, topology: ring}"])
def test_learns_and_reports(strategy: str, shards: Path, tmp_path: Path, hpcddl: Launch) -> None:
    """A learnable task is learned on four ranks, and the files say what happened."""
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, strategy), tmp_path / "run"
    done = hpcddl("train", recipe, "epochs=12", "--out", run, ranks=4)
    assert done.returncode == 0, done.stderr
    result = summary(run)
    assert not result["diverged"]
    assert result["heldout_loss"] < 0.5 * result["prior_loss"]
    assert result["prior_loss"] == pytest.approx(np.log(CLASSES), abs=0.05)
    assert result["heldout_predictions"] == 45 * 5
    assert (result["updates"], result["samples"]) == (120, 2880)
    assert len(lines(run, "evaluation")) == 12
    assert len(lines(run, "train")) == 12
    assert lines(run, "evaluation")[-1]["heldout_loss"] == result["heldout_loss"]
    assert len(result["weights_sha256"]) == 4
    assert len(set(result["weights_sha256"])) == (1 if strategy == "ssgd" else 4)
    assert list((run / "tensorboard").iterdir())


def test_same_seed_same_run(shards: Path, tmp_path: Path, hpcddl: Launch) -> None:
    """The config.yaml that a run leaves is a recipe that gives its weights again, bit for bit."""
    recipe = write_recipe(tmp_path / "r.yaml", shards, "dpsgd")
    assert hpcddl("train", recipe, "--out", tmp_path / "a", ranks=2).returncode == 0
    again = tmp_path / "a" / "config.yaml"
    assert hpcddl("train", again, "--out", tmp_path / "b", ranks=2).returncode == 0
    assert hpcddl("train", again, "seed=6", "--out", tmp_path / "c", ranks=2).returncode == 0
    a, b, c = (summary(tmp_path / run)["weights_sha256"] for run in "abc")
    assert a == b
    assert not set(a) & set(c)


def test_global_batches_do_not_depend_on_the_ranks(
    shards: Path, tmp_path: Path, hpcddl: Launch
) -> None:
    """Identity 1 end to end: SSGD gives the same losses on 1 and on 3 learners (float64)."""
    recipe = write_recipe(tmp_path / "r.yaml", shards, "ssgd", "dtype: float64")
    losses = []
    for ranks in (1, 3):
        run = tmp_path / f"run{ranks}"
        done = hpcddl("train", recipe, "--out", run, ranks=ranks)
        assert done.returncode == 0, done.stderr
        losses.append([r["heldout_loss"] for r in lines(run, "evaluation")])
    np.testing.assert_allclose(losses[1:], [losses[0]], rtol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize(("strategy", "every_steps"), [("ssgd", 0), ("dpsgd", 3)])
def test_killed_and_resumed_is_bit_for_bit_the_same(
    strategy: str, every_steps: int, shards: Path, tmp_path: Path, hpcddl: Launch
) -> None:
    """kill -9 of one rank ends the job; --resume ends with the weights of a run left alone."""
    more = f"checkpoint: {{every_steps: {every_steps}}}\nlog_every: 2"
    recipe = write_recipe(tmp_path / "r.yaml", shards, strategy, more)
    # Dropout draws random numbers of each learner's own.
    words = ["train", str(recipe), "epochs=20", "model.dropout=0.3", "--resume", "--out"]
    whole = hpcddl(*words, tmp_path / "whole", ranks=4)
    assert whole.returncode == 0, whole.stderr
    killed = subprocess.Popen(
        [*mpirun_command(4), sys.executable, "-m", "hpcddl.cli", *words, tmp_path / "killed"],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    run = tmp_path / "killed"
    wait_for(lambda: any((run / "checkpoints").glob("[es]*")))
    os.kill(rank_process(str(run)), signal.SIGKILL)
    assert killed.wait(timeout=10) != 0
    assert not (run / "summary.json").exists()
    resumed = hpcddl(*words, run, ranks=4)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after" in resumed.stdout
    assert summary(run)["weights_sha256"] == summary(tmp_path / "whole")["weights_sha256"]
    for kind in ("train", "evaluation"):
        same = [without_times(r) for r in lines(run, kind)]
        assert same == [without_times(r) for r in lines(tmp_path / "whole", kind)]


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def rank_process(word: str) -> int:
    """The process id of some rank (not of mpirun) whose command line holds `word`."""
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if word in command and command[0] == sys.executable:
            return int(entry.name)
    raise AssertionError("no rank found")


@pytest.mark.thorough
def test_an_exception_on_one_rank_ends_the_job(shards: Path, tmp_path: Path) -> None:
    """Within 5 s, non-zero, with that rank's traceback."""
    recipe = write_recipe(tmp_path / "r.yaml", shards, "dpsgd")
    code = (
        "import sys, time, mpi4py.MPI as m\n"
        "import hpcddl.training.accumulate as t\n"
        "real = t.classification_loss\n"
        "def loss(*a):\n"
        "    loss.calls += 1\n"
        "    if loss.calls == 8 and m.COMM_WORLD.rank == 1:\n"
        "        print('failing at', time.time(), flush=True)\n"
        "        raise RuntimeError('out of cheese')\n"
        "    return real(*a)\n"
        "loss.calls = 0\n"
        "t.classification_loss = loss\n"
        "from hpcddl.cli import main\n"
        "sys.exit(main())\n"
    )
    words = ("train", recipe, "--out", tmp_path / "r")
    done = run_python("-c", code, *words, ranks=3, cold=True)
    ended = time.time()
    assert done.returncode == 1
    assert "rank 1 failed" in done.stderr
    assert "RuntimeError: out of cheese" in done.stderr
    assert 'File "<string>", line 8, in loss' in done.stderr
    failed = float(done.stdout.split("failing at ")[1].split()[0])
    assert ended - failed < 5
    assert not (tmp_path / "r" / "summary.json").exists()


@pytest.mark.thorough
def test_an_import_that_breaks_on_one_rank_ends_the_job() -> None:
    """Before there is a World, too: a library that is broken on one node leaves no rank waiting."""
    code = (
        "import sys, mpi4py.MPI as m\n"
        "if m.COMM_WORLD.rank == 1: sys.modules['horovod.torch'] = None\n"
        "from hpcddl.cli import main\n"
        "sys.exit(main(['train', 'mini.ssgd']))\n"
    )
    done = run_python("-c", code, ranks=2, timeout=60, cold=True)
    assert done.returncode == 1
    assert "import of horovod.torch halted" in done.stderr


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit 2 and exactly one line of ours that says `words`."""
    ours = [line for line in done.stderr.splitlines() if line.startswith("hpcddl: error:")]
    assert done.returncode == 2, done.stderr
    assert len(ours) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in ours[0], ours[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epoch=3", ("unknown key 'epoch'", "nearest: 'epochs'")),
        ("strategy.topolgy=ring", ("strategy", "'topolgy'", "nearest: 'topology'")),
        ("strategy.topology=rign", ("strategy.topology", "'rign'", "nearest: 'ring'")),
        ("epochs=soon", ("epochs=soon", "must be a whole number")),
        ("optimizer.momentum=1.5", ("optimizer.momentum", "1.5", "less than 1")),
        ("schedule.rate=-1", ("schedule.rate", "-1", "greater than 0")),
        ("data.path=/nowhere", ("/nowhere", "manifest")),
        ("data.reshuffle=daily", ("data.reshuffle=daily", "'globally' or 'never'")),
        ("global_batch=300", ("300", "240")),
        ("strategy.topology={name: ring, neighbours: 3}", ("neighbours=3", "n=1")),
        ("strategy.topology={name: from_file, path: /none}", ("/none", "no such file")),
        ("init_from=/nowhere@3", ("/nowhere", "no checkpoint of epoch 3")),
        ("init_from=elsewhere", ("init_from", "RUN@EPOCH")),
        ("nonsense", ("'nonsense'", "key=value")),
    ],
)
def test_bad_input_is_one_line(
    override: str, words: tuple[str, ...], shards: Path, tmp_path: Path, command: Launch
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", shards, "dpsgd")
    refused(command("train", recipe, override, "--out", tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()


def test_ranks_refuse_together(shards: Path, tmp_path: Path, hpcddl: Launch) -> None:
    """Two ranks, one line, exit 2, no folder left behind."""
    recipe = write_recipe(tmp_path / "r.yaml", shards, "dpsgd")
    done = hpcddl("train", recipe, "global_batch=25", "--out", tmp_path / "run", ranks=2)
    refused(done, "global_batch=25", "multiple of the 2 learners")
    assert not (tmp_path / "run").exists()


def test_a_matrix_that_is_not_doubly_stochastic_is_refused(
    shards: Path, tmp_path: Path, hpcddl: Launch
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", shards, "dpsgd")
    matrix = tmp_path / "A.txt"
    matrix.write_text("0.5 0.5\n0.4 0.6\n")
    override = f"strategy.topology={{name: from_file, path: {matrix}}}"
    done = hpcddl("train", recipe, override, "--out", tmp_path / "run", ranks=2)
    refused(done, str(matrix), "not doubly stochastic", "column")


def test_a_damaged_shard_is_refused(tmp_path: Path, command: Launch) -> None:
    """A shard that was cut, or altered in one byte, never reaches training."""
    shards = write_shards(tmp_path / "shards")
    recipe = write_recipe(tmp_path / "r.yaml", shards, "ssgd")
    victim = shards / "train-00001.h5"
    whole = victim.read_bytes()
    for damaged in (whole[:-1], whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]):
        victim.write_bytes(damaged)
        done = command("train", recipe, "--out", tmp_path / "run")
        refused(done, "train-00001.h5")
    assert not (tmp_path / "run").exists()


# Without these a rank does not find the launcher that started it.
PMIX = ("PMIX_NAMESPACE", "PMIX_RANK", "PMIX_SERVER_URI41", "PMIX_SERVER_URI4")


@pytest.mark.thorough
def test_worlds_of_one_are_refused(shards: Path, tmp_path: Path) -> None:
    """A launcher whose ranks do not find each other starts N worlds of one: a real such launch."""
    recipe = write_recipe(tmp_path / "r.yaml", shards, "ssgd")
    alone = "".join(f"os.environ.pop({name!r}, None); " for name in PMIX)
    code = f"import os, sys; {alone}os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    words = ("-m", "hpcddl.cli", "train", recipe, "--out", tmp_path / "run")
    done = run_python("-c", code, *words, ranks=2, cold=True)
    assert done.returncode == 2
    assert "2 ranks were started but MPI joined 1" in done.stderr
    assert not (tmp_path / "run").exists()


def test_runs_of_sibling_recipes_do_not_share_a_folder() -> None:
    """A packaged recipe's name has a dot in it, which is no suffix."""
    assert default_folder("mini.ssgd") == Path("runs/mini.ssgd")
    assert default_folder("some/where/mine.yaml") == Path("runs/mine")


def test_a_run_is_never_overwritten(shards: Path, tmp_path: Path, command: Launch) -> None:
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd"), tmp_path / "run"
    assert command("train", recipe, "--out", run).returncode == 0
    before = (run / "summary.json").read_bytes()
    refused(command("train", recipe, "--out", run), "holds a run", "--resume")
    refused(command("train", recipe, "seed=6", "--out", run, "--resume"), "seed was 5", "6 now")
    words = ("schedule={name: cosine, rate: 0.5}", "--out", tmp_path / "cosine")
    assert command("train", recipe, *words).returncode == 0
    longer = command("train", recipe, "epochs=4", *words, "--resume")
    refused(longer, "epochs was 3", "schedule.name=cosine")
    refused(command("train", recipe, "--out", tmp_path), "not empty and not a run")
    refused(command("train", recipe, "--out", recipe / "run"), "cannot be written", "directory")
    assert (run / "summary.json").read_bytes() == before


def test_micro_batches_of_a_run(shards: Path, tmp_path: Path, hpcddl: Launch) -> None:
    """accumulate=4 repeats the run of whole batches, LSTM, clipping and LARS included (float64)."""
    recipe = write_recipe(tmp_path / "r.yaml", shards, "ssgd", "dtype: float64\nclip_norm: 0.5")
    losses = []
    for parts in (1, 4):
        run = tmp_path / f"run{parts}"
        words = (f"accumulate={parts}", "optimizer={name: lars, trust: 0.02}", "--out", run)
        done = hpcddl("train", recipe, *words, ranks=2)
        assert done.returncode == 0, done.stderr
        assert "gradients clipped to norm 0.5" in done.stdout
        losses.append([r["heldout_loss"] for r in lines(run, "evaluation")])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12)
    refused(
        hpcddl("train", recipe, "accumulate=13", "--out", tmp_path / "no", ranks=2),
        "accumulate=13: must not exceed the local batch of 12 samples",
    )


def test_a_tight_clip_stops_learning(shards: Path, tmp_path: Path, command: Launch) -> None:
    """clip_norm of a recipe reaches the strategy, also inside weight noise."""
    recipe = write_recipe(tmp_path / "r.yaml", shards, "dpsgd", "clip_norm: 1.0e-9")
    for i, noise in enumerate(("weight_noise.std=0", "weight_noise.std=1e-9")):
        run = tmp_path / str(i)
        assert command("train", recipe, noise, "optimizer=sgd", "--out", run).returncode == 0
        first, *_, last = (r["heldout_loss"] for r in lines(run, "evaluation"))
        assert last == pytest.approx(first, rel=1e-5)


def test_emulated_links_change_no_weight(shards: Path, tmp_path: Path, hpcddl: Launch) -> None:
    """It says that seconds are emulated ones; a rank count that it cannot have is refused."""
    recipe = write_recipe(tmp_path / "r.yaml", shards, "{name: dpsgd, topology: ring}")
    slow = (
        "links.emulate.node_size=1",
        "links.emulate.between.latency_seconds=0.001",
        "links.emulate.between.bytes_per_second=1e7",
        "links.emulate.round_delay_seconds=0.001",
        "links.emulate.slow={0: 1.5}",
    )
    checksums = []
    for name, words in (("real", ()), ("slow", slow)):
        done = hpcddl("train", recipe, *words, "--out", tmp_path / name, ranks=2)
        assert done.returncode == 0, done.stderr
        assert ("emulated links" in done.stdout) == bool(words)
        checksums.append(summary(tmp_path / name)["weights_sha256"])
    assert checksums[0] == checksums[1]
    wrong = hpcddl("train", recipe, "links.emulate.slow={2: 2}", "--out", tmp_path / "no", ranks=2)
    refused(wrong, "links.emulate.slow=2: must be 0 to 1")


def test_gradient_noise_reaches_the_strategy(shards: Path, tmp_path: Path, command: Launch) -> None:
    """Also inside weight noise; it is announced, and moves the weights."""
    recipe = write_recipe(tmp_path / "r.yaml", shards, "ssgd")
    checksums = set()
    for i, words in enumerate(([], ["gradient_noise.eta=1e-4"], ["weight_noise.std=1e-3"])):
        noise = [*words, "gradient_noise.eta=1e-4"] if i == 2 else words
        done = command("train", recipe, *noise, "--out", tmp_path / str(i))
        assert done.returncode == 0, done.stderr
        assert ("gradient noise of variance 0.0001" in done.stdout) == bool(noise)
        checksums.add(summary(tmp_path / str(i))["weights_sha256"][0])
    assert len(checksums) == 3
    refused(command("train", recipe, "gradient_noise.eta=-1"), "gradient_noise.eta=-1")


def test_a_vote_cannot_be_skipped(shards: Path, tmp_path: Path, command: Launch) -> None:
    """Refused before anything is written: float16, and an optimizer whose signs may vanish."""
    recipe = write_recipe(tmp_path / "r.yaml", shards, "majority_vote")
    words = ("optimizer=sign_sgd", "autocast=float16", "--out", tmp_path / "run")
    refused(command("train", recipe, *words), "autocast=float16", "majority_vote")
    refused(command("train", recipe, "--out", tmp_path / "run"), "needs optimizer.name=sign_sgd")
    assert not (tmp_path / "run").exists()


def test_divergence_is_a_result(shards: Path, tmp_path: Path, command: Launch) -> None:
    """A loss that is not finite ends in a summary, exit 0."""
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "dpsgd"), tmp_path / "run"
    done = command("train", recipe, "schedule.rate=1e30", "--out", run)
    assert done.returncode == 0, done.stderr
    result = summary(run)
    assert result["diverged"]
    assert not result["not_above_chance"]
    assert result["diverged_since"]["epoch"] == 1
    assert "training loss" in result["diverged_since"]["reason"]


def test_what_never_was_better_than_guessing_has_not_diverged(
    shards: Path, tmp_path: Path, command: Launch
) -> None:
    """It is said what it is instead, with the numbers."""
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "dpsgd"), tmp_path / "run"
    done = command("train", recipe, "schedule.rate=1e-9", "--out", run)
    assert done.returncode == 0, done.stderr
    result = summary(run)
    assert (result["diverged"], result["diverged_since"]) == (False, None)
    assert result["not_above_chance"]
    loss, accuracy = result["heldout_loss"], 100 * result["heldout_accuracy"]
    assert done.stdout.splitlines()[-1] == (
        f"not above chance (held-out loss {loss:.4f}, accuracy {accuracy:.2f} %; guessing: "
        f"ln 10 = 2.3026, 10.00 %): {run}/summary.json"
    )
    assert read_state(run).word == "not above chance"
    assert (
        "has finished"
        in command("train", recipe, "schedule.rate=1e-9", "--out", run, "--resume").stdout
    )


def test_starts_from_another_runs_consensus(shards: Path, tmp_path: Path, hpcddl: Launch) -> None:
    """init_from: any strategy goes on from a kept epoch of any other, on any number of ranks."""
    recipe = write_recipe(tmp_path / "a.yaml", shards, "dpsgd")
    first, second = tmp_path / "first", tmp_path / "second"
    keep = "checkpoint={keep_last: 1, keep_epochs: [1]}"
    done = hpcddl("train", recipe, "epochs=3", keep, "--out", first, ranks=4)
    assert done.returncode == 0, done.stderr
    assert {f.name for f in (first / "checkpoints").iterdir()} == {"epoch-0001", "epoch-0003"}
    # A rate of almost nothing: the first evaluation is then that of the weights it began with.
    overrides = (f"init_from={first}@1", "start_epoch=1", "epochs=2", "schedule.rate=1e-12")
    done = hpcddl("train", recipe, "strategy=ssgd", *overrides, "--out", second, ranks=2)
    assert done.returncode == 0, done.stderr
    was = lines(first, "evaluation")[0]["heldout_loss"]
    assert lines(second, "evaluation")[0]["heldout_loss"] == pytest.approx(was, rel=1e-5)
    assert lines(second, "evaluation")[0]["epoch"] == 2


def test_a_full_disk_leaves_the_last_good_checkpoint(
    shards: Path, tmp_path: Path, command: Launch
) -> None:
    """A checkpoint that cannot be written whole is not there at all, and the run says so."""
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd"), tmp_path / "run"
    assert command("train", recipe, "epochs=1", "--out", run).returncode == 0
    blocked = run / "checkpoints" / ".epoch-0002.partial"
    blocked.write_text("")  # a file where the folder must be made: mkdir fails as on a bad disk
    done = command("train", recipe, "epochs=2", "--out", run, "--resume")
    refused(done, "epoch-0002", "not written")
    assert {f.name for f in (run / "checkpoints").iterdir()} >= {"epoch-0001"}
    assert not (run / "summary.json").exists()


def test_post_local_switches_at_the_first_decay(command, tmp_path):
    """Read from the schedule; one that never decays is refused."""
    shards = write_shards(tmp_path / "shards")
    strategy = "{name: local_sgd, steps: 2, after: first_decay}"
    recipe = write_recipe(tmp_path / "r.yaml", shards, strategy)
    done = command("train", recipe, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "strategy.after=first_decay: the schedule has no decay" in done.stderr
    assert not (tmp_path / "run").exists()
    words = ["schedule.name=step", "schedule.rate=0.5", "schedule.milestones=[2]"]
    done = command("train", recipe, *words, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "mini-batch SGD through Horovod before epoch 2" in done.stdout
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["strategy"]["after"] == "first_decay"


def test_augmentation_of_a_run(tmp_path: Path, hpcddl: Launch, command: Launch) -> None:
    """Another run than without it, the same after a resume; only images can be augmented."""
    made = hpcddl("prep", "cifar", "--synthetic", "96", "--out", tmp_path / "cifar")
    assert made.returncode == 0, made.stderr
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"""epochs: 2
global_batch: 16
model: resnet20
data: {{name: shards, path: {tmp_path / "cifar"}}}
optimizer: {{name: sgd, momentum: 0.9}}
schedule: {{name: constant, rate: 0.05}}
strategy: ssgd
""")
    runs = {
        "plain": [[]],
        "whole": [["augment=pad_crop_flip"]],
        "stopped": [["augment=pad_crop_flip", "epochs=1"], ["augment=pad_crop_flip", "--resume"]],
    }
    checksums = {}
    for name, launches in runs.items():
        for words in launches:
            done = command("train", recipe, *words, "--out", tmp_path / name)
            assert done.returncode == 0, done.stderr
        checksums[name] = summary(tmp_path / name)["weights_sha256"]
    assert checksums["stopped"] == checksums["whole"] != checksums["plain"]


def test_only_images_are_augmented(shards: Path, tmp_path: Path, command: Launch) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", shards, "ssgd", "augment: pad_crop_flip")
    refused(
        command("train", recipe, "--out", tmp_path / "no"), "augment.name=pad_crop_flip", "image"
    )
