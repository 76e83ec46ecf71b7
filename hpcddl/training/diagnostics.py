"""The noise of each N-th update of any strategy, measured while it trains (paper A sec. 2).

Nothing of the run changes: weights, momentum, batch-norm statistics, carried states and random
streams are afterwards bit for bit what they are without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from mpi4py import MPI
from torch import Tensor, nn

from hpcddl.communication.average import average_aside
from hpcddl.communication.messages import broadcast
from hpcddl.models import hidden_state
from hpcddl.strategies.base import Strategy
from hpcddl.training import delta2
from hpcddl.training.accumulate import gradient
from hpcddl.training.hessian import Hessian
from hpcddl.training.noise import effective_learning_rate, noise_strength
from hpcddl.training.overall import OverallLoss


@dataclass(frozen=True)
class Measurement:
    """Holds what was measured of one update, after `step` others; g, L: the probe set's at w_a."""

    step: int
    loss: float  # L, in nats
    effective_rate: float  # alpha_e
    noise: float  # Delta
    delta2: float  # of the decentralised part, direct: alpha^2 |mean_j g_j(w_j) - g_j(w_a)|^2
    delta2_first_order: float | None  # alpha^2 |mean_j H_j dw_j|^2, where asked for
    delta2_covariance: float | None  # alpha^2 Tr(H C H), the paper's, where asked for
    consensus_distance: float  # mean_j |w_j - w_a|^2
    gradient_norm: float  # |g|
    mean_gradient_norm: float  # |g_a|, g_a = mean_j g_j as stepped along
    learner_gradient_norm: float  # mean_j |g_j|
    spectral_gap: float | None  # of the mixing matrix, where the strategy has one


class Diagnostics:
    """Measures every `every`-th update; the loop calls `before` and `after` around each.

    g_a is the mean over the learners of what p.grad holds after the update: g_j where the strategy
    took it (SSGD: their mean already), clipped and with noise where it is, without momentum and
    weight decay. Delta2 takes its gradients anew, of the same mini-batch through the same dropout
    masks, clean of those.
    """

    def __init__(
        self,
        strategy: Strategy,
        network: nn.Module,
        overall: OverallLoss,
        *,
        every: int,
        accumulate: int,
        second_order: bool,
    ) -> None:
        """`network` is the strategy's model as the loop calls it, in `accumulate` parts a batch.

        `second_order` also takes Delta2 from Hessians: one product with the mini-batch's, and one
        per learner with the overall loss's.
        """
        self._strategy, self._network, self._overall = strategy, network, overall
        self._every, self._accumulate = every, accumulate
        self._second_order = second_order
        self._begun: _Begun | None = None

    def before(self, inputs: Tensor, labels: Tensor) -> None:
        """Between two updates, with this learner's next mini-batch. Collective."""
        strategy = self._strategy
        if strategy.step % self._every:
            return
        comm, weights = strategy.world.comm, strategy.weights
        apart = weights.read(weights.empty(torch.float64))
        first_order = covariance_form = None
        with _undisturbed(strategy.model):
            with strategy.consensus():
                loss, overall = self._overall.gradient(self._network)
                consensus = weights.read(weights.empty(torch.float64))
                apart.sub_(consensus)
                distance = comm.allreduce(float(apart @ apart), MPI.SUM) / comm.size
                rounding = comm.size * torch.finfo(weights.dtype).eps
                if distance <= rounding**2 * float(consensus @ consensus):
                    distance = 0.0  # that of the mean of equal weights
                if distance:
                    at_consensus = self._gradient(inputs, labels)
                if self._second_order:
                    first_order = delta2.first_order(1, self._mean_product(inputs, labels, apart))
                    covariance_form = delta2.covariance_form(1, self._products(apart))
            direct = 0.0  # learners that all hold the same weights need no second gradient
            if distance:
                change = self._gradient(inputs, labels).sub_(at_consensus)
                average_aside(comm, change)
                direct = float(change @ change)
        self._begun = _Begun(loss, overall, distance, direct, first_order, covariance_form)

    def after(self, rate: float) -> Measurement | None:
        """Returns the measurement of the update that `before` has begun, None without. Collective.

        Args:
            rate: alpha of that update.
        """
        begun, self._begun = self._begun, None
        if begun is None:
            return None
        strategy = self._strategy
        comm, weights = strategy.world.comm, strategy.weights
        mean = weights.empty(torch.float64).zero_()
        for view, p in zip(weights.views(mean), weights.parameters, strict=True):
            if p.grad is not None:
                view.copy_(p.grad)
        norms = comm.allreduce(float(mean.norm()), MPI.SUM)
        average_aside(comm, mean)
        square = rate**2
        return Measurement(
            step=strategy.step - 1,
            loss=begun.loss,
            effective_rate=effective_learning_rate(rate, mean, begun.overall),
            noise=noise_strength(rate, mean, begun.overall),
            delta2=square * begun.direct,
            delta2_first_order=_times(square, begun.first_order),
            delta2_covariance=_times(square, begun.covariance_form),
            consensus_distance=begun.distance,
            gradient_norm=float(begun.overall.norm()),
            mean_gradient_norm=float(mean.norm()),
            learner_gradient_norm=norms / comm.size,
            spectral_gap=strategy.spectral_gap,
        )

    def _gradient(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """(d,) of this learner's mini-batch as training takes it; called twice, twice the same."""
        with _undisturbed(self._strategy.model):
            return gradient(self._network, inputs, labels, self._accumulate)

    def _mean_product(self, inputs: Tensor, labels: Tensor, apart: Tensor) -> Tensor:
        """(d,) mean_j H_j dw_j of the mini-batches as training takes them. Collective."""
        parts = self._accumulate
        batches = list(zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True))
        with _undisturbed(self._strategy.model):
            product = Hessian(self._network, batches, labels.numel())(apart)
        average_aside(self._strategy.world.comm, product)
        return product

    def _products(self, apart: Tensor) -> Iterator[Tensor]:
        """(d,) H dw_j of each learner, H of the overall loss. Collective."""
        comm = self._strategy.world.comm
        for learner in range(comm.size):
            host = apart.cpu() if comm.rank == learner else torch.empty_like(apart, device="cpu")
            broadcast(comm, host.numpy(), learner)
            yield self._overall.hessian_product(self._network, host.to(apart.device))


@dataclass(frozen=True)
class _Begun:
    loss: float
    overall: Tensor  # (d,) g
    distance: float
    direct: float  # this and the following of rate 1
    first_order: float | None
    covariance_form: float | None


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """After it the model's buffers and carried states and torch's random streams are as before."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    states = hidden_state.state_list(model)
    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(gpus):
        yield
    for buffer, before in buffers:
        buffer.copy_(before)
    hidden_state.load_state_list(model, states)
