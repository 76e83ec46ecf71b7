"""`hpcddl bench prep` measures what it says and leaves nothing behind; no time is asserted."""

import json
import math

import pytest

from data_prep.kaldi.table import Table


def test_json_holds_consistent_ratios(command, tmp_path):
    """Ratios are those of the rates beside them; the corpus is whole and gone afterwards."""
    words = ["--dim", 5, "--mib", 1, "--repeats", 1, "--dir", tmp_path, "--json"]
    done = command("bench", "prep", *words)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rate = {name: result[f"{name}_frames_per_second"] for name in ("decode", "pack", "one", "two")}
    assert math.isclose(result["pack/decode"], rate["pack"] / rate["decode"])
    assert math.isclose(result["two/one"], rate["two"] / rate["one"])
    assert result["frames"] > 2**20 / 5 * 0.9
    assert list(tmp_path.iterdir()) == []


def test_the_corpus_can_be_kept_and_packed(command, tmp_path):
    corpus = tmp_path / "corpus"
    done = command("bench", "prep", "--corpus", corpus, "--dim", 4, "--mib", 1)
    assert done.returncode == 0, done.stderr
    words = ["--data", corpus / "data", "--ali", corpus / "ali", "--out", tmp_path / "set"]
    done = command("prep", "kaldi", *words, "--heldout-fraction", 0.1)
    assert done.returncode == 0, done.stderr
    assert "120 classes (120 seen in training)" in done.stdout
    assert "skipped" not in done.stdout
    assert (corpus / "data" / "raw.1.ark").stat().st_size >= 2**20
    with Table(corpus / "data" / "utt2spk") as table:
        assert len({line.value for line in table}) == 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mib", "0"], "--mib: 0: must be a whole number, at least 1"),
        (["--dir", "/none/such"], "--dir: /none/such: No such file"),
        (["--corpus", "/proc/x"], "--corpus: /proc/x: "),
    ],
)
def test_bad_options_are_named(command, words, message):
    done = command("bench", "prep", *words)
    assert done.returncode == 2
    assert message in done.stderr
