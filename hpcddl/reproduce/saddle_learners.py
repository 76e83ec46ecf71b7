"""SSGD, SSGD* and DPSGD of n learners on a saddle, for all seeds at once in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from hpcddl.communication.topology import Topology
from hpcddl.reproduce.saddle_problem import Array, Saddle, SaddleSetting

Signs = tuple[Array, Array]
"""p and q, (S, n): the mean signs of each learner's mini-batch, for each of S seeds."""
Rule = Callable[[Array, Signs, Array, Array], Array]


@dataclass(frozen=True)
class Rules:
    """W(t+1) (S, n, 2) of W(t), the mini-batches, mixing matrices (S, n, n), noise (S, n, 2)."""

    saddle: Saddle
    rate: float

    def ssgd(self, weights: Array, signs: Signs, mixing: Array, noise: Array) -> Array:
        """w <- w - alpha mean_j g_j(w) (paper A eq. 1)."""
        gradients = self.saddle.gradient(weights, *signs)
        return weights - self.rate * gradients.mean(1, keepdims=True)

    def ssgd_star(self, weights: Array, signs: Signs, mixing: Array, noise: Array) -> Array:
        """w <- w - alpha mean_j g_j(w + xi_j) (paper A sec. 2.1, noise per learner)."""
        gradients = self.saddle.gradient(weights + noise, *signs)
        return weights - self.rate * gradients.mean(1, keepdims=True)

    def dpsgd(self, weights: Array, signs: Signs, mixing: Array, noise: Array) -> Array:
        """w_j <- sum_k A_jk w_k - alpha g_j(w_j) (paper A eq. 2)."""
        return mixing @ weights - self.rate * self.saddle.gradient(weights, *signs)


RULES: dict[str, Callable[[Rules], Rule]] = {
    "SSGD": lambda rules: rules.ssgd,
    "SSGD*": lambda rules: rules.ssgd_star,
    "DPSGD": lambda rules: rules.dpsgd,
}


def mini_batches(saddle: Saddle, setting: SaddleSetting, seeds: Iterable[int]) -> Iterator[Signs]:
    """Each seed's nB samples, drawn afresh for every update without replacement; by seed alone."""
    generators = [np.random.default_rng([seed, 0]) for seed in seeds]
    p, q = saddle.signs()
    together = setting.learners * setting.local_batch
    shape = len(generators), setting.learners, setting.local_batch
    while True:
        drawn = np.stack([g.permutation(saddle.samples)[:together] for g in generators])
        drawn = drawn.reshape(shape)
        yield p[drawn].mean(-1), q[drawn].mean(-1)


def consensus_paths(
    saddle: Saddle,
    setting: SaddleSetting,
    algorithm: str,
    topology: Callable[[int], Topology],
    noise_std: float,
    seeds: Iterable[int],
) -> Iterator[Array]:
    """w_a (S, 2) at the start and after each update; starts and samples are the same for all.

    Args:
        algorithm: one of `RULES`.
        topology: of DPSGD, by seed.
        noise_std: of SSGD*, for each weight of each learner.
    """
    seeds = list(seeds)
    rule = RULES[algorithm](Rules(saddle, setting.rate))
    starts = [np.random.default_rng([seed, 1]).normal(size=(1, 2)) for seed in seeds]
    weights = setting.start * np.repeat(np.stack(starts), setting.learners, axis=1)
    noises = [np.random.default_rng([seed, 2]) for seed in seeds]
    mixing = [topology(seed) for seed in seeds]
    nothing = np.zeros(())
    yield weights.mean(1)
    for step, signs in enumerate(mini_batches(saddle, setting, seeds)):
        matrices, noise = nothing, nothing
        if algorithm == "DPSGD":
            matrices = np.stack([at(step) for at in mixing])
        elif algorithm == "SSGD*":
            noise = noise_std * np.stack([g.normal(size=weights.shape[1:]) for g in noises])
        weights = rule(weights, signs, matrices, noise)
        yield weights.mean(1)


def leaving_times(paths: Iterator[Array], setting: SaddleSetting) -> Array:
    """(S,) updates until |y| of the consensus is above `setting.left`; inf: not in `updates`."""
    times = np.array([np.inf])
    for update, consensus in enumerate(paths):
        if update == 0:
            times = np.full(len(consensus), np.inf)
        times[np.isinf(times) & (np.abs(consensus[:, 1]) > setting.left)] = update
        if update == setting.updates or np.isfinite(times).all():
            break
    return times
