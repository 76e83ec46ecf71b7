"""`hpcddl train --smoke`: recipes with large networks, stand-ins, what is shortened, failures."""

import math
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from hpcddl.cluster.world import World
from hpcddl.data.known import KNOWN, Contents, contents
from hpcddl.data.manifest import read_manifest
from hpcddl.optimizers.schedules import SCHEDULES
from hpcddl.recipes import names
from hpcddl.run.config import Config, load_config
from hpcddl.run.shorten import changes, shorten
from tests.conftest import Launch
from tests.recipe_sizes import large
from tests.synthetic import write_recipe, write_shards

Command = Callable[..., CompletedProcess[str]]
ONE_OF_EACH, REST = large()


@pytest.fixture(scope="module")
def world() -> World:
    return World.create()


@pytest.mark.thorough
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_large_network_takes_two_steps(
    name: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One recipe for each; the command leaves nothing where it was called."""
    monkeypatch.chdir(tmp_path)
    done = command("train", name, "--smoke")
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.startswith(f"smoke {name}: passed: 2 steps of 2 samples on 1 learners")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_its_other_recipes_do_so_too(name: str, hpcddl: Launch) -> None:
    done = hpcddl("train", name, "--smoke", ranks=2, timeout=280)
    assert done.returncode == 0, done.stderr
    assert f"smoke {name}: passed: 2 steps of 4 samples on 2 learners" in done.stdout


def assert_packed(path: Path, known: Contents) -> None:
    manifest = read_manifest(path)
    assert (manifest.kind, manifest.fields, manifest.classes) == (
        known.kind,
        known.fields,
        known.classes,
    )


def test_stand_ins_are_what_prep_packs(command: Command, tmp_path: Path) -> None:
    """Kind, shape, type and classes of what anyone can make without a download."""
    corpus, mini, digits = (tmp_path / name for name in ("corpus", "mini", "digits"))
    assert not command("prep", "mini-corpus", corpus).returncode
    words = ("--data", corpus / "data", "--ali", corpus / "ali", "--out", mini)
    assert not command("prep", "kaldi", *words).returncode
    assert_packed(mini, KNOWN["demo/shards"])
    words = ("--heldout-fraction", 0.2, "--out", digits)
    assert not command("prep", "digits", *words).returncode
    assert_packed(digits, KNOWN["digits"])


@pytest.mark.parametrize("name", ["w8a", "wikitext2_small", "kaldi_digits"])
def test_stand_ins_are_what_prep_packs_of_real_data(
    name: str, command: Command, real_data: Path, tmp_path: Path
) -> None:
    text, speech = real_data / "wikitext-2", real_data / "kaldi_digits"
    commands: dict[str, tuple[Path, tuple[object, ...]]] = {
        "w8a": (
            real_data / "libsvm-w8a",
            ("libsvm", "--data", real_data / "libsvm-w8a" / "w8a", "--heldout-fraction", 0.1),
        ),
        "wikitext2_small": (
            text,
            ("wikitext", "--train", text / "valid.txt", "--heldout", text / "test.txt"),
        ),
        "kaldi_digits": (
            speech,
            (
                *("kaldi", "--data", speech / "data" / "train", "--ali", speech / "exp" / "tri1"),
                *("--map", f"/home/selma/kaldi/egs/digits={speech}", "--norm-vars"),
                *("--heldout-speakers", "nicolas"),
            ),
        ),
    }
    folder, words = commands[name]
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder")
    done = command("prep", *words, "--out", tmp_path / "set")
    assert not done.returncode, done.stderr
    assert_packed(tmp_path / "set", KNOWN[name])


def test_a_set_that_is_there_comes_before_a_known_one(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "cifar10")
    found = contents(str(shards))
    assert (found.kind, found.shape, found.classes) == ("frames", (5, 6), 10)
    assert contents(str(tmp_path / "elsewhere" / "cifar10")) is KNOWN["cifar10"]


@pytest.mark.parametrize("name", names())
def test_the_second_step_is_in_the_later_phase(name: str, world: World) -> None:
    """Of warm-up, decay and local steps: each has begun or ended by then, if it ever does."""
    config = load_config(name)
    short = shorten(config, world, Path("data"), own_batch=False)
    first, second = config.start_epoch, config.start_epoch + 1
    assert short.epochs == second + 1
    schedule = short.schedule.build(SCHEDULES, short.global_batch, short.epochs)
    assert schedule.warmup_epochs <= second
    assert schedule.first_decay is None or schedule.first_decay <= second
    if config.strategy.options.get("after"):
        assert short.strategy.options["after"] == "first_decay"
        assert first < (schedule.first_decay or math.inf)
    assert Config.model_validate(yaml.safe_load(yaml.safe_dump(short.plain()))) == short


def test_late_phases_are_shifted_and_periods_cut(world: World) -> None:
    """Only what lies beyond the second epoch moves; what was cut is said."""
    words = (
        "start_epoch=40",
        "strategy={name: local_sgd, steps: 16, after: 100, warmup: linear, warmup_epochs: 3}",
        "schedule={name: step, rate: 0.1, milestones: [20, 60, 80], warmup_epochs: 5}",
        "batch_norm={name: recomputed, batches: 8}",
        "links.emulate.slow={0: 2, 7: 3}",
    )
    config = load_config("cifar10.resnet20.ssgd", words)
    short = shorten(config, world, Path("data"), own_batch=False)
    assert short.epochs == 42
    assert short.strategy.options["after"] == 41
    assert short.strategy.options["warmup_epochs"] == 3
    assert short.schedule.options["milestones"] == [20, 41]
    assert short.schedule.options["warmup_epochs"] == 5
    assert changes(config, short) == [
        "strategy.steps=1 instead of 16",
        "batch_norm.batches=1 instead of 8",
        "links.emulate.slow.7=None instead of 3.0",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("epoch=3",), "unknown key 'epoch'"),
        (("global_batch=1", "accumulate=2"), "accumulate=2: must not exceed the local batch of 1"),
        (("data.path=/nowhere",), "data.path=/nowhere: no shard set, and not the name of a known"),
        (("schedule={name: constant, rate: 1}", "strategy.after=first_decay"), "has no decay"),
        (("model=resnet20",), "model resnet20: takes square images"),
        (("channels_last=true",), "channels_last=true: takes images of several channels"),
        (("--resume",), "--smoke: leaves nothing behind; not with --resume"),
    ],
)
def test_a_broken_recipe_fails(words: tuple[str, ...], message: str, command: Command) -> None:
    done = command("train", "mini.local_sgd", *words, "--smoke")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_loss_that_is_not_finite_fails(command: Command) -> None:
    done = command("train", "mini.ssgd", "schedule={name: constant, rate: 1.0e+30}", "--smoke")
    assert done.returncode == 1
    assert "smoke mini.ssgd: failed: " in done.stdout


def test_a_batch_that_memory_does_not_hold_fails(tmp_path: Path, hpcddl: Launch) -> None:
    """2^40 samples: no such array."""
    recipe = write_recipe(tmp_path / "r.yaml", write_shards(tmp_path / "shards"), "ssgd")
    done = hpcddl("train", recipe, f"global_batch={1 << 40}", "--smoke")
    assert done.returncode == 1
    assert "Unable to allocate" in done.stderr
