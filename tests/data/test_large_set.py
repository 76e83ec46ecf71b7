"""30 million windows: what a rank holds beside the maps, and how long an epoch's order takes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcddl.data.manifest import STRUCTURE, Manifest, ShardEntry, SplitEntry, window_fields
from hpcddl.data.shard_file import Region, structure_checksum
from hpcddl.data.shard_writer import write_manifest
from tests.conftest import run_python

WINDOWS, PER_SHARD = 30_000_000, 65536
FIELDS = window_fields(21, 260, "float16")

MEASURE = """
import json, sys, time
from itertools import islice
from pathlib import Path
import numpy as np
from hpcddl.data import shard_set
from hpcddl.data.prefetch import Prefetcher

def anonymous_mib():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 1024

before, began = anonymous_mib(), time.perf_counter()
train, _ = shard_set(path=sys.argv[1], shuffle=sys.argv[2])
opened = time.perf_counter()
order = train.order(0, 0, rank=1, ranks=2, batch=16)
loader = Prefetcher(train, "cpu", 0).batches(order)
features, labels = next(loader)
first = time.perf_counter()
assert features.shape == (16, 21, 260) and not features.any() and not labels.any()
for _ in islice(loader, 4):
    pass
print(json.dumps({
    "samples": len(train), "open_seconds": opened - began, "order_seconds": first - opened,
    "mib": anonymous_mib() - before,
}))
loader.close()
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A set of 330 GB whose files are holes: they hold zeros and take no disk."""
    folder = tmp_path_factory.mktemp("large")
    known: dict[int, ShardEntry] = {}

    def shard(name: str, samples: int) -> ShardEntry:
        path = folder / name
        offsets, end = {}, 4096
        for field, entry in FIELDS.items():
            offsets[field] = end
            end += -(-samples * entry.sample_bytes // 64) * 64
        path.touch()
        with open(path, "r+b") as file:
            file.truncate(end)
        if samples not in known:
            regions = {
                field: Region(offsets[field], (samples, *entry.shape), entry.type)
                for field, entry in FIELDS.items()
            }
            unread = dict.fromkeys(FIELDS, "0" * 32)
            checksums = {STRUCTURE: structure_checksum(path, regions), **unread}
            known[samples] = ShardEntry(
                file=name, samples=samples, bytes=end, offsets=offsets, checksums=checksums
            )
        return known[samples].model_copy(update={"file": name})

    sizes = [min(PER_SHARD, WINDOWS - begin) for begin in range(0, WINDOWS, PER_SHARD)]
    train = [shard(f"train-{number:05d}.h5", size) for number, size in enumerate(sizes)]
    heldout = [shard("heldout-00000.h5", PER_SHARD * 2)]
    splits = {"train": train, "heldout": heldout}
    write_manifest(
        folder,
        Manifest(
            kind="frames",
            fields=FIELDS,
            classes=32000,
            class_counts=[1] * 32000,
            splits={
                name: SplitEntry(samples=sum(shard.samples for shard in shards), shards=shards)
                for name, shards in splits.items()
            },
            provenance={},
            counts={},
        ),
    )
    yield folder
    shutil.rmtree(folder)  # and with it the zeros in the page cache


@pytest.mark.thorough
@pytest.mark.parametrize("shuffle", ["exact", "blocks"])
def test_thirty_million_windows_fit_beside_a_model(large, shuffle):
    """At most 300 MB per rank beside the maps, 3 s for an epoch's order (here with slack)."""
    done = run_python("-c", MEASURE, large, shuffle, cold=True)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    print(shuffle, measured)
    assert measured["samples"] == WINDOWS
    assert measured["mib"] * 2**20 < 300e6
    assert measured["open_seconds"] < 10
    assert measured["order_seconds"] < 12
