"""Prefetching changes when batches are gathered; never which, in what order, what they hold."""

import threading
import traceback
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.sampler import epoch_permutation, rank_batches
from hpcddl.data.shards import open_split

DEPTHS = [0, 1, 3, 8]


def order(samples: int, first_step: int = 0) -> Iterator[NDArray]:
    permutation = epoch_permutation(samples, 0, 0)
    return rank_batches(permutation, rank=0, ranks=1, batch=7, first_step=first_step)


def collected(prefetcher: Prefetcher, arrays) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(features.clone(), labels.clone()) for features, labels in prefetcher.batches(arrays)]


def same(one, other) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_same_batches_for_every_depth(make, depth, dtype):
    """Equal to gathering one by one, epoch after epoch, at any step to resume from."""
    split = open_split(make(dtype).folder, "train")
    prefetcher = Prefetcher(split, "cpu", depth)
    for first_step in (0, 3, 7):
        wanted = [split.batch(indices) for indices in order(len(split), first_step)]
        assert len(wanted) == 7 - first_step
        assert same(collected(prefetcher, order(len(split), first_step)), wanted)
    assert prefetch_threads() == []


@pytest.mark.parametrize("depth", DEPTHS)
def test_batches_of_different_sizes(make, depth):
    """Buffers grow when a larger batch comes, and a smaller one is a part of its buffer."""
    split = open_split(make().folder, "train")
    arrays = [np.arange(count) for count in (3, 11, 1, 53, 2)]
    wanted = [split.batch(indices) for indices in arrays]
    assert same(collected(Prefetcher(split, "cpu", depth), arrays), wanted)


class Counted:
    """A data set of one number per sample that counts what has been gathered."""

    def __init__(self) -> None:
        self.gathered = 0
        self.event = threading.Event()

    def buffers(self, batch: int, pin_memory: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty(batch, 1), torch.empty(batch, dtype=torch.int64)

    def gather(self, indices: NDArray, features: torch.Tensor, labels: torch.Tensor) -> None:
        if indices[0] == 13:
            raise ValueError("sample 13 is bad")
        labels.copy_(torch.from_numpy(indices.astype(np.int64)))
        features.fill_(float(indices[0]))
        self.gathered += 1
        if self.gathered == 4:
            self.event.set()


def singles(*indices: int) -> list[NDArray]:
    return [np.array([index]) for index in indices]


@pytest.mark.parametrize("depth", [1, 3])
def test_a_batch_stays_valid_until_the_next_is_asked_for(depth):
    """The thread runs `depth` ahead of the consumer's batch and no further, and never onto it."""
    data = Counted()
    batches = Prefetcher(data, "cpu", depth).batches(singles(*range(10)))
    features, labels = next(batches)
    if depth == 3:
        assert data.event.wait(30)  # one in hand, three ahead
    for thread in prefetch_threads():
        thread.join(0.05)
    assert data.gathered <= depth + 1
    assert (features.item(), labels.item()) == (0, 0)
    batches.close()


def test_the_cpu_gets_the_ring_itself():
    """No copy: depth + 1 buffers take turns."""
    prefetcher = Prefetcher(Counted(), "cpu", 2)
    addresses = [labels.data_ptr() for _, labels in prefetcher.batches(singles(*range(9)))]
    assert len(set(addresses)) == 3
    assert addresses[:6] == addresses[3:]


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_error_comes_in_the_place_of_its_batch(depth):
    """Batches before it arrive; it is raised once, with the frames of the thread that met it."""
    prefetcher = Prefetcher(Counted(), "cpu", depth)
    batches = prefetcher.batches(singles(1, 2, 13, 4))
    assert [next(batches)[1].item() for _ in range(2)] == [1, 2]
    with pytest.raises(ValueError, match="sample 13 is bad") as caught:
        next(batches)
    assert any(frame.name == "gather" for frame in traceback.extract_tb(caught.value.__traceback__))
    assert prefetch_threads() == []
    assert [labels.item() for _, labels in prefetcher.batches(singles(5, 6))] == [5, 6]


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_error_of_the_index_arrays_is_raised_too(depth):
    def broken() -> Iterator[NDArray]:
        yield np.array([1])
        raise KeyError("no more")

    batches = Prefetcher(Counted(), "cpu", depth).batches(broken())
    assert next(batches)[1].item() == 1
    with pytest.raises(KeyError, match="no more"):
        next(batches)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("taken", [1, 4])
def test_closing_early_joins_the_thread(depth, taken):
    """Also when the thread waits for a free buffer; afterwards the prefetcher serves again."""
    prefetcher = Prefetcher(Counted(), "cpu", depth)
    batches = prefetcher.batches(singles(*range(50, 90)))
    for _ in range(taken):
        next(batches)
    assert len(prefetch_threads()) == (depth > 0)
    batches.close()
    assert prefetch_threads() == []
    assert [labels.item() for _, labels in prefetcher.batches(singles(7))] == [7]


def test_two_iterators_at_once_are_refused():
    """They would overwrite each other's batches."""
    prefetcher = Prefetcher(Counted(), "cpu", 2)
    first = prefetcher.batches(singles(*range(9)))
    next(first)
    with pytest.raises(RuntimeError, match="still in use"):
        next(prefetcher.batches(singles(1)))
    first.close()


def test_negative_depth_is_refused():
    with pytest.raises(ValueError, match="depth is -1"):
        Prefetcher(Counted(), "cpu", -1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("depth", DEPTHS)
def test_cuda_gets_the_same_batches(make, depth):
    """Pinned buffers and a stream of its own: kernels queued on a batch see it unharmed."""
    split = open_split(make("float16", windows=700, per_shard=300).folder, "train")
    prefetcher = Prefetcher(split, "cuda", depth)
    busy = torch.zeros(2000, 2000, device="cuda")
    for epoch in range(3):
        sums = []
        for features, _ in prefetcher.batches(order(len(split))):
            busy = busy @ busy  # the batch is read long after the next was asked for
            sums.append((features + busy[0, 0]).double().sum())
        wanted = [split.batch(indices)[0].double().sum() for indices in order(len(split))]
        assert torch.allclose(torch.stack(sums).cpu(), torch.stack(wanted)), epoch
