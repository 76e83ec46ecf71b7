"""Local SGD of K learners on logistic regression, all of them at once in this process."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np
from scipy.special import expit

from hpcddl.data.sampler import epoch_permutation, steps_per_epoch
from hpcddl.reproduce.logistic import Array, Logistic


def local_sgd(
    problem: Logistic, *, learners: int, batch: int, steps: int, rate: float, seed: int
) -> Iterator[Array]:
    """W (K, d) after each iteration, averaged after every H of them; it changes in place.

    w_j <- w_j - rate * (g_j(w_j) + l2 w_j) from 0, then every H steps w_j <- mean_k w_k (paper B
    eq. 2; H = 1: mini-batch SGD), over the batches that `rank_slice` gives to K ranks: what
    `hpcddl train` computes with the strategy `local_sgd`, in float64.

    Raises:
        UserError: fewer samples than one global batch takes.
    """
    samples, features = problem.features.shape
    per_epoch = steps_per_epoch(samples, learners, batch)
    together = learners * batch
    weights = np.zeros((learners, features))
    place_in_batch = np.tile(np.arange(together), per_epoch)
    learner = place_in_batch // batch
    done = count(1)
    for epoch in count():
        order = epoch_permutation(samples, seed, epoch)[: per_epoch * together]
        x, signs = problem.features[order], problem.signs[order].reshape(per_epoch, together)
        sizes, ends = np.diff(x.indptr), x.indptr[::together]
        row = np.repeat(place_in_batch, sizes)
        # Where an entry's weight lies in the flat W: its learner's part, its feature.
        place = np.repeat(learner * features, sizes) + x.indices
        for y, begin, end in zip(signs, ends[:-1], ends[1:], strict=True):
            at, of, values = place[begin:end], row[begin:end], x.data[begin:end]
            scores = np.bincount(of, values * weights.reshape(-1)[at], together)
            slopes = -y * expit(-y * scores) / batch
            gradients = np.bincount(at, values * slopes[of], weights.size).reshape(weights.shape)
            weights -= rate * (gradients + problem.l2 * weights)
            if next(done) % steps == 0:
                weights[:] = weights.mean(0)
            yield weights
