"""Parts of a packing: every window in one shard, every shard in one job, whatever the numbers."""

import os
import socket
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.packing import Packing, Part, parts, parts_of_job
from hpcddl.common.errors import UserError
from hpcddl.data.manifest import FieldEntry
from hpcddl.data.shard_file import ShardWriter

FIELDS = {
    "labels": FieldEntry(shape=(), dtype="int32"),
    "features": FieldEntry(shape=(), dtype="float32"),
}


@given(st.integers(0, 500), st.integers(0, 90), st.integers(1, 60), st.integers(1, 20))
def test_jobs_share_all_windows(train, heldout, per_shard, jobs):
    """Shards follow each other without a gap; the jobs' shares, joined, are all shards in order."""
    everything = parts({"train": train, "heldout": heldout}, per_shard)
    for split, total in (("train", train), ("heldout", heldout)):
        mine = [part for part in everything if part.split == split]
        assert [part.number for part in mine] == list(range(len(mine)))
        assert [part.first for part in mine] == [per_shard * k for k in range(len(mine))]
        assert sum(part.samples for part in mine) == total
        assert all(0 < part.samples <= per_shard for part in mine)
    shares = [parts_of_job(everything, job, jobs) for job in range(1, jobs + 1)]
    assert list(chain(*shares)) == everything
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def pack(packing: Packing, part: Part) -> None:
    with ShardWriter(packing.folder / part.name, FIELDS, part.samples) as shard:
        values = np.arange(part.samples)
        shard.append({"labels": values.astype("i4"), "features": values.astype("f4")})
        packing.add(part, shard.seal(), np.ones(part.samples, np.int64))


def test_only_whole_shards_count(tmp_path):
    """A shard without a record, a record without its shard and a cut shard are to be written."""
    packing = Packing(tmp_path / "out", overwrite=False)
    packing.make()
    one, two, three = parts({"train": 12}, 4)
    for part in (one, two):
        pack(packing, part)
    assert packing.record(one, FIELDS).class_counts == [1, 1, 1, 1]
    assert packing.record(three, FIELDS) is None
    os.truncate(packing.folder / one.name, 100)
    assert packing.record(one, FIELDS) is None
    (packing.folder / two.name).unlink()
    assert packing.record(two, FIELDS) is None
    with pytest.raises(UserError, match=r"3 of 3 shards are not packed yet \(train-00000.h5, "):
        packing.collect([one, two, three], FIELDS, read_all=True)


def test_the_merge_reads_every_byte(tmp_path):
    packing = Packing(tmp_path / "out", overwrite=False)
    packing.make()
    (part,) = parts({"train": 4}, 4)
    pack(packing, part)
    path = packing.folder / part.name
    entry = packing.collect([part], FIELDS, read_all=True)[part].entry
    data = bytearray(path.read_bytes())
    data[entry.offsets["features"] + 3] ^= 1
    path.write_bytes(data)
    packing.collect([part], FIELDS, read_all=False)
    with pytest.raises(UserError, match=r"train-00000\.h5: features is altered"):
        packing.collect([part], FIELDS, read_all=True)


def test_partial_files_of_the_dead_are_removed(tmp_path):
    """Those of this machine's processes that are gone; not those of the living or of others."""
    packing = Packing(tmp_path / "out", overwrite=False)
    packing.make()
    host = socket.gethostname()
    names = {n: f".train-00000.h5.{n}.partial" for n in (f"{host}.4194999", f"{host}.1", "far.77")}
    for name in names.values():
        (packing.folder / name).touch()
    packing.make()
    left = {path.name for path in packing.folder.iterdir()}
    assert left == {names[f"{host}.1"], names["far.77"]}


def test_too_little_room_is_said_beforehand(tmp_path):
    with pytest.raises(UserError, match=r"the shards take 1000000000.0 GB, .* GB free"):
        Packing(tmp_path / "deep" / "out", overwrite=False).need_room(10**18)
