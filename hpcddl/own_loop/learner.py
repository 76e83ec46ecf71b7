"""A network that learns together with those of the other ranks, in a loop of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.options import Choice, From
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.optimizers.loss_scale import LossScale
from hpcddl.own_loop import checkpoints
from hpcddl.own_loop.start import init
from hpcddl.run.config import dotted
from hpcddl.run.faults import first_fault
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Strategy, same_start


class Learner:
    """One rank's network, its optimizer, and how it agrees with the other ranks' networks.

    Made on every rank with the same arguments. The network starts as rank 0's; each update is one
    `with learner.step():` around the backward pass of this rank's share of the global batch:

        learner = hpcddl.Learner(model, torch.optim.AdamW(model.parameters()), "dpsgd")
        for x, y in data:
            with learner.step():
                loss_of(model(x), y).backward()

    `step` clears the gradients before and steps the optimizer after, so that the loop calls neither
    `zero_grad` nor `optimizer.step`. Learning rates are the optimizer's own, as torch's schedulers
    set them.

    Args:
        model: on this rank's device (`init().device`); its parameters are changed in place.
        optimizer: of the model's parameters, or a function that makes one of them.
        strategy: `ssgd`, `dpsgd`, `local_sgd` or `majority_vote`.
        seed: from which strategies draw, such as random neighbours; the same on all ranks.
        clip_norm: the largest norm of a gradient; None: any.
        loss_scale: multiply losses by a factor that adapts itself, for float16 (see `scale`).
        options: the strategy's, as in a recipe: `topology="ring"`, `steps=8`.

    Raises:
        UserError: an unknown strategy or option; the optimizer is not one of this model's; the
            ranks' arguments differ.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Callable[[Iterable[nn.Parameter]], Optimizer],
        strategy: str = "ssgd",
        *,
        seed: int = 0,
        clip_norm: float | None = None,
        loss_scale: bool = False,
        **options: Any,
    ) -> None:
        self.world: World = init()
        self.model = model
        self.seed = seed
        self.optimizer = self.world.together(lambda: _optimizer(model, optimizer))
        local = GradientStep(
            self.optimizer, clip_norm=clip_norm, loss_scale=LossScale() if loss_scale else None
        )
        choice = self.world.together(lambda: _choice(strategy, options))
        self.world.check_same(
            {
                **dotted(choice.plain(), "strategy"),
                "seed": seed,
                "clip_norm": clip_norm,
                "loss_scale": loss_scale,
                **_described(model, self.optimizer),
            }
        )
        same_start(model, self.world)
        self._strategy: Strategy = self.world.together(
            lambda: choice.build(STRATEGIES, model, local, self.world, seed)
        )
        if loss_scale and not self._strategy.may_skip_steps:
            raise UserError(
                f"loss_scale=True: {strategy} cannot do without a step of a learner whose gradient "
                "overflows; fix: bfloat16"
            )
        self._inside = self._stepping = self._scaled = False
        self._compared = self.world.size == 1
        self.optimizer.register_step_pre_hook(self._refuse_step_of_its_own)

    @property
    def updates(self) -> int:
        """Updates so far."""
        return self._strategy.step

    @property
    def bytes_sent(self) -> int:
        """Bytes that this learner has sent since its process started."""
        return self._strategy.traffic.bytes_sent

    def describe(self) -> str:
        """Says in one line how the learners agree."""
        return self._strategy.describe()

    @contextmanager
    def step(self, epoch: float | None = None) -> Iterator[None]:
        """Makes one update of the backward pass inside: the optimizer's step, and the agreement.

        Messages that can travel during forward and backward start at the beginning.

        Args:
            epoch: how many epochs are done, parts included; strategies that change in the course
                of training need it.

        Raises:
            UserError: a step inside another, or after one that an exception has left; no backward
                pass inside; the epoch is needed and not given; the ranks' weights differ at the
                first update.
        """
        strategy = self._strategy
        if self._inside:
            raise UserError(
                "step(): must not begin before the one before is over; where an exception left it, "
                "the messages of that update are lost: go on from a checkpoint"
            )
        if epoch is not None:
            strategy.epoch = epoch
        elif strategy.needs_epoch:
            raise UserError(
                f"step(): {strategy.describe()}: must be told the epochs so far; fix: "
                "learner.step(epoch)"
            )
        if not self._compared:
            self._compare()
        self.optimizer.zero_grad()
        self._inside, self._scaled = True, False
        strategy.before_forward()
        yield
        self._check_gradient()
        self._stepping = True
        strategy.update()
        self._inside = self._stepping = False

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        """Inside, backward passes only add to the gradients; the one after them ends the batch.

        with learner.step():
            with learner.accumulate():
                (loss_of(model(x1), y1) / 2).backward()
            (loss_of(model(x2), y2) / 2).backward()
        """
        with self._strategy.accumulating():
            yield

    def scale(self, loss: Tensor) -> Tensor:
        """Returns the loss that backward has to start from; with `loss_scale` only.

        Raises:
            UserError: there is no loss scale.
        """
        if self._strategy.loss_scale is None:
            raise UserError("scale(): the learner has no loss scale; fix: loss_scale=True")
        self._scaled = True
        return self._strategy.loss_scale.scale(loss)

    @contextmanager
    def consensus(self) -> Iterator[None]:
        """Inside, the network holds the mean of all learners' weights. Collective.

        Raises:
            UserError: inside of a step.
        """
        if self._inside:
            raise UserError("consensus(): must be outside of step()")
        with self._strategy.consensus():
            yield

    def save(self, folder: str | Path, extra: dict[str, Any] | None = None, keep: int = 2) -> None:
        """Writes a checkpoint of all learners into `folder`, whole or not at all. Collective.

        It holds weights, optimizer, messages that wait to be mixed, and the state of the random
        generators of Python, NumPy and torch.

        Args:
            extra: more that this rank needs to go on: tensors, numbers, texts, and lists and dicts
                of them, such as a scheduler's `state_dict()`.
            keep: how many checkpoints stay; older ones are removed.

        Raises:
            UserError: a rank could not write, or a learner has weights or momentum that are not
                finite; older checkpoints stay as they were.
        """
        if self._inside:
            raise UserError("save(): must be outside of step()")
        checkpoints.save(Path(folder), self._strategy, extra or {}, keep)

    def resume(self, folder: str | Path) -> dict[str, Any] | None:
        """Goes on from the newest whole checkpoint in `folder`. Collective.

        With as many ranks as wrote it every learner goes on bit for bit; other numbers go on from
        the learners' mean, with rank 0's `extra`.

        Returns:
            The `extra` of `save`; None where there is no checkpoint, and nothing has changed.

        Raises:
            UserError: there are checkpoints, but all of them are damaged.
        """
        if self._inside:
            raise UserError("resume(): must be outside of step()")
        extra = checkpoints.resume(Path(folder), self._strategy, self.seed)
        self._compared = self._compared or extra is not None
        return extra

    def _check_gradient(self) -> None:
        if all(parameter.grad is None for parameter in self._strategy.weights.parameters):
            raise UserError("step(): must have a backward pass inside; there is no gradient")
        if self._strategy.loss_scale is not None and not self._scaled:
            raise UserError("step(): must scale the loss: learner.scale(loss).backward()")

    def _refuse_step_of_its_own(self, *arguments: Any) -> None:
        if not self._stepping:
            raise UserError(
                "optimizer.step(): is the learner's, at the end of `with learner.step():`; fix: "
                "leave it out"
            )

    def _compare(self) -> None:
        """Refuses weights that were changed on some ranks between construction and first update."""
        digest = hashlib.sha256()
        for parameter in self.model.parameters():
            values = parameter.detach().cpu().flatten().view(torch.uint8)
            digest.update(values.numpy().tobytes())
        digests = self.world.comm.allgather(digest.digest())
        others = [rank for rank, one in enumerate(digests) if one != digests[0]]
        if others:
            raise UserError(
                f"weights of rank {others[0]} are not those of rank 0 at the first update; fix: "
                "load them on all ranks, or before the Learner is made"
            )
        self._compared = True


def _optimizer(
    model: nn.Module, given: Optimizer | Callable[[Iterable[nn.Parameter]], Optimizer]
) -> Optimizer:
    """Makes the optimizer where a function is given, and checks that it is this model's."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise UserError("model: must have a parameter that requires a gradient")
    optimizer = given if isinstance(given, Optimizer) else given(trained)
    own = {id(p) for p in model.parameters()}
    if any(id(p) not in own for group in optimizer.param_groups for p in group["params"]):
        raise UserError(
            "optimizer: steps parameters that are not the model's; must be made of "
            "model.parameters()"
        )
    return optimizer


def _described(model: nn.Module, optimizer: Optimizer) -> dict[str, object]:
    """What of a network and its optimizer has to be the same on all ranks, and can be printed."""
    return {
        "optimizer": type(optimizer).__name__,
        **{f"optimizer.{key}": value for key, value in optimizer.defaults.items()},
        **{
            f"parameter {name}": f"{tuple(parameter.shape)} {parameter.dtype}"
            for name, parameter in model.named_parameters()
        },
    }


def _choice(strategy: str, options: dict[str, Any]) -> Choice:
    try:
        choice = From(STRATEGIES).choose({"name": strategy, **options})
    except ValidationError as error:
        raise UserError(f"{strategy}: {first_fault(error)}") from None
    except ValueError as error:
        raise UserError(f"strategy: {error}") from None
    if choice.options.get("after") == "first_decay":
        raise UserError("after=first_decay: must be an epoch; the schedule is not known here")
    return choice
