"""A search carried out: every trial trained, the best found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf

from hpcddl.common.errors import UserError
from hpcddl.run.config import Config
from hpcddl.tune.searches import (
    RATE,
    Point,
    Search,
    factor_grid,
    gradient_noise_grid,
    noise_search,
    rate_grid,
    start_of,
    words_of,
)
from hpcddl.tune.trials import Trainer, Trial


@dataclass(frozen=True)
class FinishedSearch:
    """A search that has ended: its trials, the best first by the measure `by`."""

    trainer: Trainer
    search: Search
    by: str
    trials: Sequence[Trial]

    @property
    def best(self) -> Trial | None:
        """None where every trial is lost: it diverged, or is not better than guessing."""
        first = self.trials[0]
        return None if isinf(first.cost(self.by)) else first

    @property
    def edges(self) -> list[str]:
        """The keys whose best value is the lowest or the highest that was tried."""
        if self.best is None:
            return []
        tried = {key: [trial.point[key] for trial in self.trials] for key in self.best.point}
        return [k for k, v in self.best.point.items() if v in (min(tried[k]), max(tried[k]))]

    @property
    def command(self) -> list[str]:
        """What trains with the best point."""
        assert self.best is not None
        trainer, point = self.trainer, self.best.point
        others = [word for word in trainer.overrides if word.partition("=")[0] not in point]
        words = [trainer.recipe, *others, *words_of(point)]
        return [*trainer.launcher, "hpcddl", "train", *words]


def carry_out(search: Search, trainer: Trainer, by: str) -> FinishedSearch:
    """Trains the points that `search` asks for; of those as good the smaller comes first.

    Raises:
        UserError: runs in the folder are of another number of learners; see Trainer.train.
        RunFailed: a run's exit status was not 0.
    """
    trials: list[Trial] = []

    def cost_of(point: Point) -> float:
        trials.append(trainer.train(point))
        learners = sorted({run.learners for trial in trials for run in trial.runs})
        if len(learners) > 1:
            raise UserError(
                f"--launcher: runs in {trainer.out} are of {learners} learners; give another --out"
            )
        return trials[-1].cost(by)

    search.run(cost_of)
    trials.sort(key=lambda trial: (trial.cost(by), *trial.point.values()))
    return FinishedSearch(trainer, search, by, trials)


def choose(config: Config, over: str, factor: float | None, trainer: Trainer, most: int) -> Search:
    """The search that `--over` names: rate, noise, gradient-noise, or the growing grid of a key.

    Raises:
        UserError: `over` is no positive number of the recipe.
    """
    if over == "noise":
        return noise_search()
    if over == "gradient-noise":
        return gradient_noise_grid()
    key = RATE if over == "rate" else over
    start = start_of(config, key)
    if over == "rate" and factor is None:
        return rate_grid(start, trainer.accepts, most)
    return factor_grid(key, start, factor or 2.0, trainer.accepts, most)
