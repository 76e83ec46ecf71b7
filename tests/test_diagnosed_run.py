"""`diagnostics` in a recipe: what is written down, and that the run is the same without."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Launch
from tests.synthetic import write_recipe, write_shards, write_text

STEPS = 30  # of write_recipe's three epochs
EVERY = 4
ALL = f"{{every: {EVERY}, samples: 50, second_order: true}}"


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    found = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record for record in found if record["kind"] == kind]


def weights(run: Path) -> list[str]:
    result: list[str] = json.loads((run / "summary.json").read_text())["weights_sha256"]
    return result


@pytest.mark.parametrize("strategy", ["dpsgd", "{name: local_sgd, steps: 3}"])
def test_the_run_is_the_same_bits_without(strategy: str, tmp_path: Path, hpcddl: Launch) -> None:
    """Weights of both learners; also of a run whose second half is a resumed one."""
    recipe = write_recipe(tmp_path / "r.yaml", write_shards(tmp_path / "shards"), strategy)
    plain, measured = tmp_path / "plain", tmp_path / "measured"
    assert hpcddl("train", recipe, "--out", plain, ranks=2).returncode == 0
    words = ["train", recipe, f"diagnostics={ALL}", "--out", measured]
    for more in (["epochs=1"], ["--resume"]):
        done = hpcddl(*words, *more, ranks=2)
        assert done.returncode == 0, done.stderr
    assert weights(measured) == weights(plain)
    found = records(measured, "diagnostics")
    assert [r["step"] for r in found] == list(range(1, STEPS + 1, EVERY))
    for r in found:
        along = (r["effective_rate"] * r["gradient_norm"]) ** 2
        stepped = (r["learning_rate"] * r["mean_gradient_norm"]) ** 2
        assert along + r["noise"] == pytest.approx(stepped, rel=1e-9)
        apart = r["consensus_distance"] > 0
        assert (r["delta2"] > 0, r["delta2_covariance"] > 0) == (apart, apart)
    assert any(r["consensus_distance"] > 0 for r in found)
    gaps = {r["spectral_gap"] for r in found}
    assert gaps == ({None} if "local" in strategy else {1.0})  # a pair is all of two learners
    booked = [r["seconds"]["diagnose"] for r in records(measured, "evaluation")]
    assert all(later > earlier for earlier, later in pairwise(booked))


def test_a_text_s_states_go_on_as_without(tmp_path: Path, hpcddl: Launch) -> None:
    text = write_text(tmp_path / "text")
    words = ["train", "wikitext2_small.post_local_sgd", f"data.path={text}", "data.bptt=5"]
    words += ["global_batch=4", "epochs=2", "model.cells=8", "accumulate=2"]
    for name, more in (("plain", []), ("measured", [f"diagnostics={ALL}"])):
        done = hpcddl(*words, *more, "--out", tmp_path / name, ranks=2)
        assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "measured") == weights(tmp_path / "plain")
    assert records(tmp_path / "measured", "diagnostics")


def test_second_derivatives_and_compilation_exclude_each_other(
    tmp_path: Path, hpcddl: Launch
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", write_shards(tmp_path / "shards"), "dpsgd")
    words = ["compile=true", "diagnostics={every: 1, second_order: true}"]
    done = hpcddl("train", recipe, *words, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr == (
        "hpcddl: error: diagnostics.second_order=true: torch.compile has no second derivatives; "
        "fix: compile=false\n"
    )
