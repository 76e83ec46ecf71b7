"""Learning-rate schedules: pure functions from progress, in epochs, to the rate.

Every schedule is made for a global batch: a base rate belongs to a base batch and scales linearly
with the global one (`base_batch` 0: no scaling).
"""

from collections.abc import Callable

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat

Schedule = Callable[[float], float]


def constant(global_batch: int, *, rate: PositiveFloat, base_batch: NonNegativeInt = 0) -> Schedule:
    """The same rate throughout."""
    scaled = _scaled(rate, base_batch, global_batch)
    return lambda epoch: scaled


def speech(
    global_batch: int,
    *,
    rate: PositiveFloat = 0.1,
    base_batch: NonNegativeInt = 256,
    warmup_epochs: NonNegativeFloat = 10,
    decay: PositiveFloat = 2**-0.5,
    decay_epochs: NonNegativeFloat = 10,
) -> Schedule:
    """Linear warm-up from the base rate to the scaled one, then x `decay` per epoch (A sec. 4.2).

    The decay is taken at the start of each epoch after the warm-up, `decay_epochs` times in all.
    """
    scaled = _scaled(rate, base_batch, global_batch)

    def schedule(epoch: float) -> float:
        if epoch < warmup_epochs:
            return rate + (scaled - rate) * epoch / warmup_epochs
        return scaled * decay ** min(decay_epochs, int(epoch - warmup_epochs) + 1)

    return schedule


def step(
    global_batch: int,
    *,
    rate: PositiveFloat,
    base_batch: NonNegativeInt = 0,
    milestones: list[NonNegativeFloat],
    factor: PositiveFloat = 0.1,
    warmup_epochs: NonNegativeFloat = 0,
) -> Schedule:
    """Warm-up from the base rate, then x `factor` after each of the `milestones` (epochs).

    Paper A: milestones 160 and 240 of 320; paper B app. A.4: warm-up of 5 epochs.
    """
    scaled = _scaled(rate, base_batch, global_batch)

    def schedule(epoch: float) -> float:
        if epoch < warmup_epochs:
            return rate + (scaled - rate) * epoch / warmup_epochs
        return scaled * factor ** sum(epoch >= milestone for milestone in milestones)

    return schedule


def _scaled(rate: float, base_batch: int, global_batch: int) -> float:
    return rate * global_batch / base_batch if base_batch else rate


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "speech": speech,
    "step": step,
}
