"""signSGD with majority vote: learners agree on the sign of every entry, by one bit each way."""

import torch
from torch import nn

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.communication.average import MajorityVote
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.optimizers.sign import SignSGD
from hpcddl.strategies.base import Strategy


class MajorityVoteSGD(Strategy):
    """w <- w - alpha sign(sum_j sign(u_j)) (Bernstein et al. 2018; paper B table 15 at H = 1).

    u_j is that of the optimizer `sign_sgd`, whose steps of +-alpha keep their sign in the weights'
    precision; steps along u_j itself may vanish in it. All learners hold the same weights, but for
    one whose u_j is not finite: there its weights become NaN.

    Raises:
        UserError: another optimizer.
    """

    may_skip_steps = False  # a learner that takes none has no vote to give

    def __init__(self, model: nn.Module, local: GradientStep, world: World, seed: int) -> None:
        super().__init__(model, local, world)
        if not isinstance(local.optimizer, SignSGD):
            raise UserError("strategy.name=majority_vote: needs optimizer.name=sign_sgd")
        self._before, self._after = self.weights.empty(), self.weights.empty()
        self._vote = MajorityVote(world.comm, self.weights.size)

    def update(self) -> None:
        before = self.weights.read(self._before)
        self.take_step()
        with self.traffic.timed():
            signs = self.weights.read(self._after)
            torch.sub(before, signs, out=signs)
            lost = signs.isnan()  # which a vote of one bit cannot say
            self._vote(signs)
            # The rate is one for all weights: a vote has no other length.
            before.sub_(signs, alpha=self.optimizer.param_groups[0]["lr"])
            before.masked_fill_(lost, torch.nan)
            self.weights.write(before)
        self.traffic.sent(self._vote.bytes_sent)
        self.step += 1

    def describe(self) -> str:
        return f"signSGD with majority vote of {self.world.size} learners, one bit each way"
