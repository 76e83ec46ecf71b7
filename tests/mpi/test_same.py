"""Ranks that were given different things end with one line, and never hang."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hpcddl
from hpcddl.cli import main
from hpcddl.cluster import same
from hpcddl.cluster.world import AgreedError, World
from tests.synthetic import write_recipe, write_shards


def refused(world: World, match: str, work: Any) -> None:
    """All ranks get the same AgreedError, which names rank 1 and both values."""
    if world.size == 1:
        work()
        return
    with pytest.raises(AgreedError, match=match) as caught:
        work()
    assert len(set(world.comm.allgather(str(caught.value)))) == 1
    assert str(caught.value).startswith("rank 1 on ")
    assert "on rank 0" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.ranks(1, 2, 4)
def test_equal_facts_pass(world: World) -> None:
    world.check_same({"a": 1, "b": {"c": (1.5, None)}, "path": Path("x")})


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize(
    ("mine", "others", "match"),
    [
        ({"rate": 0.1}, {"rate": 0.2}, r"rate: 0\.1, but on rank 0 \(.*\): 0\.2; must be the same"),
        ({"rate": 0.1}, {}, r"rate: 0\.1, but on rank 0 .*: not there"),
        ({}, {"rate": 0.1}, r"rate: not there, but on rank 0 .*: 0\.1"),
        ({"a": "x\ny"}, {"a": "x"}, r"a: 'x\\ny', but on rank 0"),
        ({"a": "x" * 1000}, {"a": "x"}, r"a: x{80}\.\.\., but on rank 0"),
    ],
)
def test_a_difference_is_named(world: World, mine: Any, others: Any, match: str) -> None:
    refused(world, match, lambda: world.check_same(mine if world.rank == 1 else others))


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize(
    ("variable", "value"), [("ONEDNN_MAX_CPU_ISA", "AVX2"), ("NVIDIA_TF32_OVERRIDE", "0")]
)
def test_variables_that_change_numbers(
    world: World, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if world.rank == 1:
        monkeypatch.setenv(variable, value)
    refused(world, f"{variable}: {value}, but on rank 0 .*: not set", World.create)


@pytest.mark.ranks(2)
def test_the_default_dtype(world: World) -> None:
    def odd() -> None:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64 if world.rank == 1 else before)
        try:
            World.create()
        finally:
            torch.set_default_dtype(before)

    refused(world, r"default dtype of torch: torch\.float64", odd)


@pytest.mark.ranks(2, 4)
def test_the_options_of_a_command(world: World) -> None:
    World.create({"epoch": None})
    refused(
        world,
        "--no-data: True, but on rank 0 .*: False",
        lambda: World.create({"no_data": world.rank == 1}),
    )


@pytest.mark.ranks(2)
def test_the_source_code(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same, "code_checksum", lambda: "other" if world.rank == 1 else "one")
    refused(world, r"source code of hpcddl \(checksum\): other, but", World.create)


def test_the_checksum_is_of_names_and_contents(world: World, tmp_path: Path) -> None:
    if world.rank:
        return

    def package(name: str, **files: str) -> str:
        for file, text in files.items():
            path = tmp_path / name / file.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".py").write_text(text)
        return same.code_checksum(tmp_path / name)

    first = package("a", x="1", sub__y="2")
    assert first == package("b", x="1", sub__y="2")
    assert first != package("c", x="1", sub__y="3")
    assert first != package("d", x="1", sub__z="2")
    (tmp_path / "b" / "__pycache__").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("no code")
    same.code_checksum.cache_clear()
    assert first == same.code_checksum(tmp_path / "b")


def learner(width: int = 3, rate: float = 0.1, strategy: str = "ssgd", **options: Any) -> None:
    model = nn.Linear(2, width)
    hpcddl.Learner(model, torch.optim.SGD(model.parameters(), rate), strategy, **options)


@pytest.mark.ranks(2)
@pytest.mark.parametrize(
    ("odd", "match"),
    [
        ({"width": 4}, r"parameter weight: \(4, 2\) torch\.float32, but on rank 0 .*: \(3, 2\)"),
        ({"rate": 0.2}, r"optimizer\.lr: 0\.2"),
        ({"seed": 1}, "seed: 1"),
        ({"clip_norm": 1.0}, r"clip_norm: 1\.0"),
        ({"strategy": "local_sgd", "steps": 4}, r"strategy\.name: local_sgd, but on rank 0 .*ssgd"),
    ],
)
def test_learners_of_a_loop_of_one_s_own(world: World, odd: Any, match: str) -> None:
    refused(world, match, lambda: learner(**(odd if world.rank == 1 else {})))


DIFFERENCES = [
    ("schedule.rate=0.01", r"schedule\.rate: 0\.01, but on rank 0 .*: 0\.5"),
    ("seed=6", "seed: 6"),
    ("epochs=2", "epochs: 2"),
    ("log_every=3", "log_every: 3"),
    ("dtype=float64", "dtype: float64"),
    ("model.cells=4", r"model\.cells: 4"),
    ("global_batch=48", "global_batch: 48"),
    ("strategy={name: local_sgd, steps: 4}", r"strategy\.name: local_sgd"),
    ("optimizer=lars", r"optimizer\.name: lars"),
    (
        "links.emulate={round_delay_seconds: 0.01}",
        r"links\.emulate: not there, but on rank 0 .*: None",
    ),
    ("--resume", "--resume: True"),
    ("--smoke", "--smoke: True"),
    ("--out=elsewhere", "--out: elsewhere"),
]
"""What only the second rank is given; what the error says of it."""


@pytest.mark.ranks(2)
@pytest.mark.parametrize("strategy", ["ssgd", "dpsgd"])
@pytest.mark.parametrize(("odd", "match"), DIFFERENCES, ids=[odd for odd, _ in DIFFERENCES])
def test_two_ranks_of_train(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    odd: str,
    match: str,
    strategy: str,
) -> None:
    """Status 2 on both and one line; nothing is trained."""
    recipe = tmp_path / "r.yaml"
    if world.rank == 0:
        write_recipe(recipe, write_shards(tmp_path / "shards"), strategy)
    world.comm.Barrier()
    words = ["train", str(recipe), f"--out={tmp_path / 'run'}", *([odd] if world.rank else [])]
    assert main(words) == 2
    said = world.comm.allgather(capsys.readouterr().err)
    assert re.fullmatch(rf"hpcddl: error: rank 1 on .*{match}.*\n", said[0])
    assert said[1] == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.ranks(2)
def test_one_rank_sees_other_samples(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a folder is not on a shared disk, and each node has a set of its own there."""
    recipe, link = tmp_path / "r.yaml", tmp_path / f"{world.rank}"
    write_shards(link / "shards", seed=world.rank)
    path = Path("shards")  # relative: on each rank to a folder of its own
    if world.rank == 0:
        write_recipe(recipe, path, "ssgd")
    world.comm.Barrier()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(link)
        assert main(["train", str(recipe), f"--out={tmp_path / 'run'}"]) == 2
    said = world.comm.allgather(capsys.readouterr().err)
    assert re.fullmatch(r"hpcddl: error: rank 1 on .*data\.fingerprint: \w{32}, but .*\n", said[0])
