"""A mini corpus, and the real digits, packed or not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def corpus_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated corpus of 12 utterances of 4 speakers; not to be changed."""
    from hpcddl.cli import main

    folder = tmp_path_factory.mktemp("mini") / "corpus"
    words = ["--utterances", "12", "--speakers", "4", "--classes", "100"]
    assert main(["prep", "mini-corpus", str(folder), *words]) == 0
    return folder


@pytest.fixture
def corpus(corpus_once: Path, tmp_path: Path) -> Path:
    """A copy to break; its scp files name the original's paths, as those of a moved corpus do."""
    shutil.copytree(corpus_once, tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.fixture
def pack(command, tmp_path: Path) -> Callable:
    """`hpcddl prep kaldi` on a corpus folder, into tmp_path/shards."""

    def run(folder: Path, *words: object):
        return command(
            *("prep", "kaldi", "--data", folder / "data", "--ali", folder / "ali"),
            *("--out", tmp_path / "shards", *words),
        )

    return run


@pytest.fixture(scope="session")
def digits(real_data: Path) -> Path:
    """A real Kaldi experiment, paths stale and links copied as text."""
    folder = real_data / "kaldi_digits"
    if not folder.is_dir():
        pytest.skip(f"no real Kaldi experiment: {folder} is not a folder")
    return folder
