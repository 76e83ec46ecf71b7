"""Kaldi's tables as dictionaries, for corpora that are small."""

from pathlib import Path

from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.scp import Entry, parse_entry
from data_prep.kaldi.table import Table


def read_table(path: Path) -> dict[str, str]:
    """First word -> rest of the line."""
    with Table(path) as table:
        return {line.key: line.value for line in table}


def read_scp(path: Path, paths: PathMap) -> dict[str, Entry]:
    """The entries of an scp file by key, their paths mapped."""
    table = read_table(path)
    return {key: parse_entry(path, key, value, paths) for key, value in table.items()}
