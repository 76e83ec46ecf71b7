"""Local SGD and its kin: post-local, hierarchical, with global momentum, compressed."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.options import Choice, From
from hpcddl.communication.average import CompressedMean, Mean, RoundedMean
from hpcddl.communication.compression import COMPRESSORS
from hpcddl.communication.gradients import GradientMean
from hpcddl.communication.groups import block_of
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies.base import Strategy
from hpcddl.strategies.local_steps import Warmup, local_steps

UNCOMPRESSED = Choice("none", {})


class LocalSGD(Strategy):
    """H local steps on each learner, then every w_j <- mean_k w_k (paper B eq. 2).

    `steps` is H. `after` makes it post-local SGD (B sec. 3): up to that epoch, or the learning
    rate's first decay, it is mini-batch SGD with gradients averaged by Horovod. `block_steps` H^b
    above 1 makes it hierarchical (B app. D): learners of a block (those of a node, or `block_size`
    consecutive ones) average every H steps, all of them every H * H^b, where the block's average is
    skipped. `warmup` lets H grow from 1 over `warmup_epochs` (B app. B.4). `momentum` m is the
    global one, of the averages over all: u <- m u + (w_sync - mean_j w_j); w_sync <- w_sync - u.

    `compression` C acts on the averages over all: w_sync <- w_sync - mean_j C(w_sync - w_j), which
    is local signSGD's `scaled_sign` (B alg. 3), or with `error_feedback` EF-signSGD (B alg. 4):
    p_j = (w_sync - w_j) + e_j; e_j <- p_j - C(p_j); w_sync <- w_sync - mean_j C(p_j). Post-local
    SGD's first phase is then the same at H = 1, over all learners at every step. `exchange_dtype`
    is what uncompressed changes w_sync - w_j travel as instead.
    """

    def __init__(
        self,
        model: nn.Module,
        local: GradientStep,
        world: World,
        seed: int,
        *,
        steps: PositiveInt,
        after: NonNegativeFloat | Literal["first_decay"] = 0.0,
        block_steps: PositiveInt = 1,
        block_size: PositiveInt | None = None,
        warmup: Warmup = "none",
        warmup_epochs: NonNegativeFloat = 0.0,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        compression: Annotated[Choice, From(COMPRESSORS)] = UNCOMPRESSED,
        error_feedback: bool = True,
        exchange_dtype: Literal["bfloat16", "float16"] | None = None,
        fusion_mib: NonNegativeInt = 0,
    ) -> None:
        super().__init__(model, local, world)
        assert after != "first_decay", "an epoch by now: the schedule is not known here"
        self.after = after
        self.local_steps = local_steps(steps, warmup, warmup_epochs)
        self.block_steps = block_steps
        self.momentum = momentum
        self._rule = f"{warmup} warm-up to H = {steps}" if warmup != "none" else f"H = {steps}"
        block = block_of(world, block_size) if block_steps > 1 else None
        self._block = Mean(block, world.network) if block else None
        if exchange_dtype and compression.name != "none":
            raise UserError(
                f"strategy.exchange_dtype={exchange_dtype}: compression={compression.name} has a "
                "message of its own; give one of them"
            )
        self.exchange_dtype = exchange_dtype
        self._everyone = (
            RoundedMean(
                world.comm, getattr(torch, exchange_dtype), self.weights.size, world.network
            )
            if exchange_dtype
            else Mean(world.comm, world.network)
        )
        self._buffer = self.weights.empty()  # kept: new memory costs more than filling it
        self._since = 0  # local steps since the last average
        self._rounds = 0  # averages of the block since the last one of all
        self._anchor: Tensor | None = None  # w_sync, kept where it is needed
        self._velocity: Tensor | None = None  # u
        self._error: Tensor | None = None  # e_j
        self.compression, self.error_feedback = compression.name, error_feedback
        compressor = compression.build(COMPRESSORS)
        self._compressed = (
            CompressedMean(world.comm, compressor, self.weights.sizes, world.network)
            if compressor
            else None
        )
        exact_first = after and self._compressed is None
        self._gradients = GradientMean(model, world, fusion_mib) if exact_first else None
        if self._gradients is None:
            self._start_locally()

    def before_forward(self) -> None:
        if self._gradients is not None and self.epoch >= self.after:
            self._gradients.stop()
            self._gradients = None
            self._start_locally()

    def update(self) -> None:
        if self._gradients is not None:
            with self.traffic.timed():
                self._gradients.finish()
            self.traffic.sent(self._gradients.bytes_sent)
        self.take_step()
        self.step += 1
        if self._gradients is None:
            self._since += 1
            first_phase = self.epoch < self.after
            if first_phase or self._since >= self.local_steps(self.epoch - self.after):
                with self.traffic.timed():
                    self._synchronise(among_all=first_phase)

    def describe(self) -> str:
        parts = [f"local SGD: {self._rule} over {self.world.size} learners"]
        if self._block is not None:
            size = self._block.comm.size
            parts.append(f"in blocks of {size} (here), all every {self.block_steps} averages")
        if self.after:
            how = "H = 1 for all" if self._compressed else "mini-batch SGD through Horovod"
            parts.append(f"{how} before epoch {self.after:g}")
        if self.momentum:
            parts.append(f"global momentum {self.momentum:g}")
        if self._compressed:
            feedback = "with" if self.error_feedback else "without"
            parts.append(f"compressed by {self.compression} {feedback} error feedback")
        if self.exchange_dtype:
            parts.append(f"changes travel as {self.exchange_dtype}")
        return ", ".join(parts)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "local": self._gradients is None,
            "since": self._since,
            "rounds": self._rounds,
            "anchor": self._anchor,
            "velocity": self._velocity,
            "error": self._error,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if state["local"] and self._gradients is not None:
            self._gradients.stop()
            self._gradients = None
        self._since, self._rounds = state["since"], state["rounds"]
        self._anchor, self._velocity, self._error = (
            None if state[name] is None else state[name].to(self.weights.device)
            for name in ("anchor", "velocity", "error")
        )

    def _start_locally(self) -> None:
        """Learners agree now: what they hold is where the first average is measured from."""
        if not self.momentum and self._compressed is None and self.exchange_dtype is None:
            return
        self._anchor = self.weights.read(self.weights.empty())
        if self.momentum:
            self._velocity = torch.zeros_like(self._anchor)
        if self._compressed is not None and self.error_feedback:
            self._error = torch.zeros_like(self._anchor)

    def _synchronise(self, among_all: bool) -> None:
        self._since = 0
        self._rounds += 1
        if self._block is not None and self._rounds < self.block_steps and not among_all:
            self._average(self._block)
            return
        self._rounds = 0
        if self._anchor is None:
            assert isinstance(self._everyone, Mean)
            self._average(self._everyone)
            return
        change = self.weights.read(self._buffer)
        torch.sub(self._anchor, change, out=change)
        if self._compressed is None:
            self._mean(self._everyone, change)
        else:
            self._mean_compressed(self._compressed, change)
        if self._velocity is not None:
            change = self._velocity.mul_(self.momentum).add_(change)
        self._anchor.sub_(change)
        self.weights.write(self._anchor)

    def _mean_compressed(self, mean: CompressedMean, change: Tensor) -> None:
        """change <- mean_j C(change + e_j); e_j <- what this learner's message left out."""
        if self._error is not None:
            change.add_(self._error)
            self._error.copy_(change)
        sent = mean(change)
        if self._error is not None:
            self._error.sub_(sent)
        self.traffic.sent(mean.bytes_sent)

    def _average(self, among: Mean) -> None:
        among.add_up(self.weights.read(self._buffer))
        self.weights.write(self._buffer, divisor=among.comm.size)
        self.traffic.sent(among.bytes_sent)

    def _mean(self, among: Mean | RoundedMean, vector: Tensor) -> None:
        among(vector)
        self.traffic.sent(among.bytes_sent)
