"""`hpcddl bench loader` measures what it says and leaves nothing behind; no time is asserted."""

import json
import math

import pytest


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("depth", [0, 2])
def test_json_holds_consistent_ratios(command, tmp_path, dtype, depth):
    """loader/memcpy is loader/take times take/memcpy, and the rate fits the ratio."""
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
    assert list(tmp_path.iterdir()) == []


def test_text_names_what_is_compared(command, tmp_path):
    words = ["--dim", 4, "--windows", 64, "--batch", 32, "--repeats", 1, "--dir", tmp_path]
    done = command("bench", "loader", *words)
    assert done.returncode == 0, done.stderr
    assert "of np.take from RAM" in done.stdout
    assert "64 windows of 21 x 4, float32, batches of 32" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--windows", "10", "--batch", "20"], "--windows: 10, allowed: at least --batch"),
        (["--depth", "-1"], "--depth: -1, allowed: at least 0"),
        (["--dir", "/none/such"], "--dir: /none/such: No such file"),
    ],
)
def test_bad_options_are_named(command, words, message):
    done = command("bench", "loader", *words)
    assert done.returncode == 2
    assert message in done.stderr
