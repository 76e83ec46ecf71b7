"""`hpcddl bench loader` measures what it says and leaves nothing behind; no time is asserted."""

import json
import math

import numpy as np
import pytest
import torch

from hpcddl.bench import loader
from hpcddl.bench.noise_set import Windows, h5py_workers, write_noise
from hpcddl.data.shards import open_split


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("depth", [0, 2])
def test_json_holds_consistent_ratios(command, tmp_path, dtype, depth):
    """loader/memcpy is loader/take times take/memcpy, and all rates fit their ratios."""
    words = ["--dim", 8, "--windows", 300, "--batch", 32, "--repeats", 2, "--dir", tmp_path]
    done = command("bench", "loader", *words, "--dtype", dtype, "--depth", depth, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["dimension"], result["dtype"], result["depth"]) == (8, dtype, depth)
    assert math.isclose(result["loader/memcpy"], result["loader/take"] * result["take/memcpy"])
    window_gib = 21 * 8 * 4 / 2**30
    assert math.isclose(
        result["loader_windows_per_second"] * window_gib,
        result["loader/memcpy"] * result["memcpy_gib_per_second"],
    )
    for one, other in (
        ("one_core", "take"),
        ("loader", "take"),
        ("blocks", "sequential"),
        ("loader", "h5py_workers"),
        ("cold_blocks", "cold_sequential"),
    ):
        ratio = result[f"{one}/{other}"]
        if one == "cold_blocks" and ratio is None:
            continue  # a folder whose pages stay in memory, such as a tmpfs
        rates = [result[f"{name}_windows_per_second"] for name in (one, other)]
        assert math.isclose(ratio, rates[0] / rates[1])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_cold_pages_is_told(command, tmp_path, monkeypatch):
    """Nothing is measured warm and called cold."""
    monkeypatch.setattr(loader, "drop_pages", lambda folder: False)
    words = ["--dim", 4, "--windows", 64, "--batch", 32, "--repeats", 1, "--dir", tmp_path]
    done = command("bench", "loader", *words, "--json")
    assert json.loads(done.stdout)["cold_blocks/cold_sequential"] is None
    assert "not measured: the pages" in command("bench", "loader", *words).stdout


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_rival_brings_the_same_samples(tmp_path, dtype):
    """Window by window through h5py what the loader gathers from its maps."""
    noise = write_noise(tmp_path, 3, 50, dtype)
    shards = open_split(tmp_path, "train")
    assert len(shards.paths) == 4
    features, labels = shards.batch(np.arange(50))
    rival = Windows(shards)
    assert len(rival) == 50
    for index in range(50):
        assert torch.equal(rival[index][0], features[index])
        assert torch.equal(rival[index][1], labels[index])
    assert np.array_equal(features.numpy(), noise.astype(np.float32))
    batches = list(h5py_workers(shards, 8, 1))
    assert [len(labels) for _, labels in batches] == [8] * 6


def test_text_names_what_is_compared(command, tmp_path):
    words = ["--dim", 4, "--windows", 64, "--batch", 32, "--repeats", 1, "--dir", tmp_path]
    done = command("bench", "loader", *words)
    assert done.returncode == 0, done.stderr
    assert "of np.take from RAM" in done.stdout
    assert "64 windows of 21 x 4, float32, batches of 32" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--windows", "10", "--batch", "20"], "--windows: 10: must be at least --batch, 20"),
        (["--depth", "-1"], "--depth: -1: must be a whole number, at least 0"),
        (["--block", "0"], "--block: 0: must be a whole number, at least 1"),
        (["--dir", "/none/such"], "--dir: /none/such: No such file"),
    ],
)
def test_bad_options_are_named(command, words, message):
    done = command("bench", "loader", *words)
    assert done.returncode == 2
    assert message in done.stderr
