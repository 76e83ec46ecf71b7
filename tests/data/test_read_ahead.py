"""Reading ahead: in order, bounded, ended with its iterator, and no error of it is lost."""

import threading
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest

from hpcddl.data import read_ahead
from hpcddl.data.block_order import BlockShuffle
from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.read_ahead import ReadAhead, paced, preload
from hpcddl.data.shards import open_split


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


class Disk:
    """Records what is loaded; blocks or fails where told to."""

    def __init__(self, bad: int | None = None) -> None:
        self.loaded: list[int] = []
        self.bad = bad

    def load(self, first: int, samples: int) -> None:
        if self.bad is not None and first <= self.bad < first + samples:
            raise OSError(5, "Input/output error")
        self.loaded.extend(range(first, first + samples))


def ordered(disk: Disk, ahead: int, pool: int, batch: int = 2):
    """Steps of `batch` over ranges 100..109, 0..9, each sample needed `pool` samples early."""
    ranges = [(100, 10), (0, 10)]
    needed = (min(pool + step * batch, 20) for step in count())
    steps = (np.array([step]) for step in range(10))
    return paced(steps, ReadAhead(disk.load, ranges, ahead), needed)


@pytest.mark.parametrize("ahead", [1, 3, 50])
@pytest.mark.parametrize("pool", [2, 6, 20])
def test_what_is_needed_is_loaded_in_order(ahead, pool):
    """Before step t the first pool + 2t samples are, and no more than twice `ahead` beyond."""
    disk = Disk()
    wanted = [*range(100, 110), *range(10)]
    for step, _ in enumerate(ordered(disk, ahead, pool)):
        needed = min(pool + 2 * step, 20)
        loaded = list(disk.loaded)
        assert needed <= len(loaded) <= needed + 2 * ahead
        assert loaded == wanted[: len(loaded)]
    assert disk.loaded == wanted
    assert threads() == []


def test_the_thread_ends_with_its_iterator():
    """Closed early, also before the first batch, or dropped."""
    ordered(Disk(), 1, 2).close()
    batches = ordered(Disk(), 1, 2)
    next(batches)
    assert len(threads()) == 1
    batches.close()
    assert threads() == []
    batches = ordered(Disk(), 1, 2)
    next(batches)
    del batches
    assert threads() == []


def test_an_error_is_raised_before_the_batch_that_needs_it():
    """Not lost, not early, and the thread is gone."""
    batches = ordered(Disk(bad=104), 1, 2)
    assert len(list(islice(batches, 2))) == 2
    with pytest.raises(OSError, match="Input/output error"):
        next(batches)
    assert threads() == []


@pytest.mark.parametrize("depth", [0, 2])
def test_a_prefetcher_passes_errors_on_and_ends_the_thread(make, depth, monkeypatch):
    """A shard that vanishes while training is an error, and closing the batches ends it all."""
    made = make()
    split = open_split(made.folder, "train", shuffle=BlockShuffle(4, 8))
    loader = Prefetcher(split, "cpu", depth)
    order = split.order(0, 0, rank=0, ranks=1, batch=2)
    batches = loader.batches(order)
    next(batches)
    batches.close()
    assert threads() == []
    assert next(order, None) is None
    for path in made.folder.glob("train-*.h5"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="train-"):
        list(loader.batches(split.order(0, 1, rank=0, ranks=1, batch=2)))
    assert threads() == []


def test_the_right_bytes_are_asked_for(make, monkeypatch):
    """All of the features and labels of the epoch, once, and nothing else."""
    made = make(per_shard=20)
    split = open_split(made.folder, "train", shuffle=BlockShuffle(6, 9))
    asked: dict[Path, list[int]] = {}

    def note(path, regions):
        for offset, size in regions:
            asked.setdefault(path, []).extend(range(offset, offset + size))

    monkeypatch.setattr("hpcddl.data.shards.preload", note)
    list(split.order(0, 0, rank=0, ranks=1, batch=53))
    for path, regions in zip(split.paths, split.regions, strict=True):
        fields = [regions["features"], regions["labels"]]
        wanted = [byte for r in fields for byte in range(r.offset, r.offset + r.size)]
        assert sorted(asked[path]) == sorted(wanted)


def test_preloaded_bytes_are_in_memory(tmp_path):
    """The kernel has read them: RWF_NOWAIT succeeds only from the page cache."""
    path = tmp_path / "file"
    content = np.random.default_rng(0).bytes(3 << 20)
    path.write_bytes(content)
    with open(path, "rb") as file:
        read_ahead.os.fsync(file.fileno())
        read_ahead.os.posix_fadvise(file.fileno(), 0, 0, read_ahead.os.POSIX_FADV_DONTNEED)
        try:
            read_ahead.os.preadv(file.fileno(), [bytearray(10)], 0, read_ahead.os.RWF_NOWAIT)
            pytest.skip("this file system keeps its pages: nothing is ever cold")
        except BlockingIOError:
            pass
        except OSError as error:
            pytest.skip(f"cannot ask for pages without waiting: {error.strerror}")
        preload(path, [(1 << 20, 1 << 20)])
        got = bytearray(1 << 20)
        view, read = memoryview(got), 0
        while read < len(got):
            at = (1 << 20) + read
            read += read_ahead.os.preadv(file.fileno(), [view[read:]], at, read_ahead.os.RWF_NOWAIT)
    assert bytes(got) == content[1 << 20 : 2 << 20]
