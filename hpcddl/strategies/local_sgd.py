"""Local SGD and its kin: post-local, hierarchical, with global momentum, compressed."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.options import Choice, From
from hpcddl.communication.average import Averager, CompressedMean, Mean, RoundedMean
from hpcddl.communication.compression import COMPRESSORS
from hpcddl.communication.gradients import GradientMean
from hpcddl.communication.groups import block_of
from hpcddl.communication.horovod import FusionMib
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies.base import Strategy
from hpcddl.strategies.local_steps import Warmup, local_steps
from hpcddl.strategies.outer_momentum import OuterMomentum
from hpcddl.strategies.period import Period, Whom

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

    It is put together from a `Period` (when, and who), an `Averager` (how a vector becomes the
    mean of all) and an `OuterMomentum`; a new one of any of them is one small class.
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
        fusion_mib: FusionMib = 0,
    ) -> None:
        super().__init__(model, local, world)
        assert after != "first_decay", "an epoch by now: the schedule is not known here"
        self.after = after
        self.needs_epoch = after > 0 or warmup != "none"
        self._rule = f"{warmup} warm-up to H = {steps}" if warmup != "none" else f"H = {steps}"
        block = block_of(world, block_size) if block_steps > 1 else None
        self._block = Mean(block) if block else None
        self._period = Period(local_steps(steps, warmup, warmup_epochs), block_steps)
        if exchange_dtype and compression.name != "none":
            raise UserError(
                f"strategy.exchange_dtype={exchange_dtype}: compression={compression.name} has a "
                "message of its own; give one of them"
            )
        self.exchange_dtype = exchange_dtype
        self.compression, self.error_feedback = compression.name, error_feedback
        compressor = compression.build(COMPRESSORS)
        self._everyone: Averager
        if compressor:
            self._everyone = CompressedMean(
                world.comm, compressor, self.weights.sizes, error_feedback
            )
        elif exchange_dtype:
            dtype = getattr(torch, exchange_dtype)
            self._everyone = RoundedMean(world.comm, dtype, self.weights.size)
        else:
            self._everyone = Mean(world.comm)
        self.momentum = momentum
        self._outer: OuterMomentum | None = None
        self._anchor: Tensor | None = None  # w_sync, kept where it is needed
        self._buffer = self.weights.empty()  # kept: new memory costs more than filling it
        exact_first = after and compressor is None
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
            if self.epoch < self.after:
                whom = self._period.step_of_all()
            else:
                whom = self._period.step(self.epoch - self.after)
            if whom != "nobody":
                with self.traffic.timed():
                    self._synchronise(whom)

    def describe(self) -> str:
        parts = [f"local SGD: {self._rule} over {self.world.size} learners"]
        if self._block is not None:
            size = self._block.comm.size
            parts.append(
                f"in blocks of {size} (here), all every {self._period.block_steps} averages"
            )
        if self.after:
            exact = self.compression == "none"
            how = "mini-batch SGD through Horovod" if exact else "H = 1 for all"
            parts.append(f"{how} before epoch {self.after:g}")
        if self.momentum:
            parts.append(f"global momentum {self.momentum:g}")
        if self.compression != "none":
            feedback = "with" if self.error_feedback else "without"
            parts.append(f"compressed by {self.compression} {feedback} error feedback")
        if self.exchange_dtype:
            parts.append(f"changes travel as {self.exchange_dtype}")
        return ", ".join(parts)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "local": self._gradients is None,
            "since": self._period.since,
            "rounds": self._period.rounds,
            "anchor": self._anchor,
            "velocity": self._outer.velocity if self._outer else None,
            "error": self._everyone.error,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if state["local"] and self._gradients is not None:
            self._gradients.stop()
            self._gradients = None
            self._start_locally()
        self._period.since, self._period.rounds = state["since"], state["rounds"]
        self._anchor, velocity, self._everyone.error = (
            None if state[name] is None else state[name].to(self.weights.device)
            for name in ("anchor", "velocity", "error")
        )
        if self._outer and velocity is not None:
            self._outer.velocity = velocity

    def _start_locally(self) -> None:
        """Learners agree now: what they hold is where the first average is measured from."""
        if isinstance(self._everyone, Mean) and not self.momentum:
            return
        self._anchor = self.weights.read(self.weights.empty())
        if self.momentum:
            self._outer = OuterMomentum(self.momentum, self._anchor)

    def _synchronise(self, whom: Whom) -> None:
        if whom == "block":
            assert self._block is not None
            self._replace(self._block)
        elif self._anchor is None:
            assert isinstance(self._everyone, Mean)
            self._replace(self._everyone)
        else:
            self._move(self._anchor)

    def _replace(self, mean: Mean) -> None:
        """w_j <- the mean of w over the learners of `mean`."""
        mean.add_up(self.weights.read(self._buffer))
        self.weights.write(self._buffer, divisor=mean.comm.size)
        self.traffic.sent(mean.bytes_sent)

    def _move(self, anchor: Tensor) -> None:
        """w_sync <- w_sync - mean_j (w_sync - w_j), by averager and momentum; w_j <- w_sync."""
        change = self.weights.read(self._buffer)
        torch.sub(anchor, change, out=change)
        self._everyone(change)
        self.traffic.sent(self._everyone.bytes_sent)
        if self._outer is not None:
            change = self._outer(change)
        anchor.sub_(change)
        self.weights.write(anchor)
