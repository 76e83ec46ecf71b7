"""Learning-rate schedules: pure functions from progress, in epochs, to the rate.

Every schedule is made for a global batch and the epochs of the whole run. A base rate belongs to a
base batch and scales linearly with the global one (`base_batch` 0: no scaling); the warm-up is
linear per iteration, from the base rate to the scaled one (paper B app. A.4; Goyal et al. 2017).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from hpcddl.common.errors import UserError
from hpcddl.common.options import Table
from hpcddl.common.own_entries import declared, parameters_of, with_given


@dataclass(frozen=True)
class Schedule:
    """Progress in epochs -> rate: from `base` to `scaled` in the warm-up, then scaled * factor."""

    base: float
    scaled: float
    warmup_epochs: float
    factor: Callable[[float], float]  # of the scaled rate, by epoch
    first_decay: float | None  # epoch at which the rate first leaves `scaled`; None: it stays

    def __call__(self, epoch: float) -> float:
        if epoch < self.warmup_epochs:
            return self.base + (self.scaled - self.base) * epoch / self.warmup_epochs
        return self.scaled * self.factor(epoch)


def constant(
    global_batch: int,
    epochs: int,
    *,
    rate: PositiveFloat,
    base_batch: NonNegativeInt = 0,
    warmup_epochs: NonNegativeFloat = 0,
) -> Schedule:
    """The scaled rate throughout, after the warm-up."""
    scaled = _scaled(rate, base_batch, global_batch)
    return Schedule(rate, scaled, warmup_epochs, lambda epoch: 1.0, None)


def speech(
    global_batch: int,
    epochs: int,
    *,
    rate: PositiveFloat = 0.1,
    base_batch: NonNegativeInt = 256,
    warmup_epochs: NonNegativeFloat = 10,
    decay: PositiveFloat = 2**-0.5,
    decay_epochs: NonNegativeFloat = 10,
) -> Schedule:
    """Warm-up, then x `decay` per epoch (paper A sec. 4.2).

    The decay is taken at the start of each epoch after the warm-up, `decay_epochs` times in all.
    """
    scaled = _scaled(rate, base_batch, global_batch)

    def factor(epoch: float) -> float:
        return decay ** min(decay_epochs, int(epoch - warmup_epochs) + 1)

    return Schedule(rate, scaled, warmup_epochs, factor, warmup_epochs if decay_epochs else None)


def step(
    global_batch: int,
    epochs: int,
    *,
    rate: PositiveFloat,
    base_batch: NonNegativeInt = 0,
    milestones: Annotated[list[PositiveFloat], Field(min_length=1)] | None = None,
    fractions: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]
    | None = None,
    factor: PositiveFloat = 0.1,
    warmup_epochs: NonNegativeFloat = 0,
) -> Schedule:
    """Warm-up, then x `factor` after each milestone, in epochs or as fractions of all samples.

    Paper A sec. 4.1: milestones 160, 240 of 320. Paper B app. A.4: warm-up of 5 epochs, fractions
    0.5, 0.75; ImageNet: milestones 30, 60, 80 of 90.

    Raises:
        UserError: not exactly one of `milestones` and `fractions`; a warm-up beyond the first.
    """
    if (milestones is None) == (fractions is None):
        raise UserError(
            "schedule.milestones, schedule.fractions: give exactly one of them "
            "(epochs, or fractions of the whole run)"
        )
    at = milestones or [fraction * epochs for fraction in fractions or ()]
    first = min(at)
    if warmup_epochs > first:
        raise UserError(
            f"schedule.warmup_epochs={warmup_epochs:g}: must not exceed the first decay, "
            f"at epoch {first:g}"
        )
    return Schedule(
        rate,
        _scaled(rate, base_batch, global_batch),
        warmup_epochs,
        lambda epoch: factor ** sum(epoch >= milestone for milestone in at),
        first,
    )


def cosine(
    global_batch: int,
    epochs: int,
    *,
    rate: PositiveFloat,
    base_batch: NonNegativeInt = 0,
    final: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    warmup_epochs: NonNegativeFloat = 0,
) -> Schedule:
    """Warm-up, then half a cosine to `final` x the scaled rate (Loshchilov & Hutter 2017, eq. 5).

    Raises:
        UserError: a warm-up that leaves no epoch to decay in.
    """
    if warmup_epochs >= epochs:
        raise UserError(f"schedule.warmup_epochs={warmup_epochs:g}: must be below epochs={epochs}")

    def factor(epoch: float) -> float:
        done = min(1.0, (epoch - warmup_epochs) / (epochs - warmup_epochs))
        return final + (1 - final) * (1 + cos(pi * done)) / 2

    scaled = _scaled(rate, base_batch, global_batch)
    return Schedule(rate, scaled, warmup_epochs, factor, warmup_epochs)


def own_schedule(function: Callable[..., Any]) -> Callable[..., Schedule]:
    """Makes an entry of a function that returns a schedule: any function of the epoch to the rate.

    It is given the arguments `global_batch` and `epochs` if it has them.
    """
    make = with_given(function, ("global_batch", "epochs"))

    def entry(global_batch: int, epochs: int, **options: Any) -> Schedule:
        found = make(global_batch, epochs, **options)
        if isinstance(found, Schedule):
            return found
        try:
            float(found(0.0))
        except (TypeError, ValueError):
            raise UserError(
                f"schedule: {make.__name__} must return a function of the epoch, such as 1.5, to a "
                f"learning rate, not {found!r}"
            ) from None
        return Schedule(1.0, 1.0, 0.0, found, None)

    return declared(entry, make, list(parameters_of(make)))


def agree_until(epoch: int, one: Schedule, other: Schedule) -> bool:
    """Whether both give the same rates up to `epoch`, compared at 100 points per epoch."""
    return all(one(i / 100) == other(i / 100) for i in range(100 * epoch))


def _scaled(rate: float, base_batch: int, global_batch: int) -> float:
    return rate * global_batch / base_batch if base_batch else rate


SCHEDULES = Table(
    {
        "constant": constant,
        "speech": speech,
        "step": step,
        "cosine": cosine,
    },
    own=own_schedule,
)
