"""Held-out loss by batch and rate: the table, and where only one algorithm converges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import product
from statistics import median

from hpcddl.common.study import StudyFolder
from hpcddl.common.table import aligned
from hpcddl.papers import find
from hpcddl.papers.show import table as printed
from hpcddl.run.records import Run
from hpcddl.run.state import NOT_ABOVE

ALGORITHMS = ("SSGD", "DPSGD")


@dataclass(frozen=True)
class Outcome:
    """What one run came to, with what tells it from the others."""

    algorithm: str
    batch: int
    rate: float  # at the base batch
    peak_rate: float  # scaled with the batch: the schedule's highest
    seed: int
    learners: int
    classes: int
    prior_loss: float  # of guessing by class frequency
    loss: float  # held out, of the last consensus, in nats; inf when not finite
    accuracy: float  # 0 .. 1

    @property
    def guessing_loss(self) -> float:
        """The loss of the better guess, evenly or by class frequency."""
        return min(self.prior_loss, math.log(self.classes))

    @property
    def converged(self) -> bool:
        """Whether it is better than guessing."""
        return self.loss < 0.98 * self.guessing_loss


def outcome(run: Run) -> Outcome:
    """Sums up a finished run."""
    config, summary = run.config, run.summary
    rate, batch = config["schedule"]["rate"], config["global_batch"]
    loss = summary["heldout_loss"]
    return Outcome(
        algorithm=config["strategy"]["name"].upper(),
        batch=batch,
        rate=rate,
        peak_rate=rate * batch / config["schedule"]["base_batch"],
        seed=config["seed"],
        learners=summary["learners"],
        classes=summary["classes"],
        prior_loss=summary["prior_loss"],
        loss=math.inf if loss is None else loss,
        accuracy=summary["heldout_accuracy"],
    )


@dataclass(frozen=True)
class Corpus:
    """All runs on one corpus; its name is the sweep's."""

    name: str
    outcomes: list[Outcome]

    @property
    def batches(self) -> list[int]:
        """The global batches, ascending."""
        return sorted({o.batch for o in self.outcomes})

    @property
    def rates(self) -> list[float]:
        """The rates at the base batch, ascending."""
        return sorted({o.rate for o in self.outcomes})

    def at(self, algorithm: str, batch: int, rate: float) -> list[Outcome]:
        """An outcome per seed."""
        key = algorithm, batch, rate
        return [o for o in self.outcomes if (o.algorithm, o.batch, o.rate) == key]

    def converges(self, algorithm: str, batch: int, rate: float) -> bool:
        """Whether most seeds do."""
        outcomes = self.at(algorithm, batch, rate)
        return 2 * sum(o.converged for o in outcomes) > len(outcomes)

    def losses(self, algorithm: str, batch: int) -> dict[float, float]:
        """Rates at which most seeds converge -> the median loss of those."""
        return {
            rate: median(o.loss for o in self.at(algorithm, batch, rate) if o.converged)
            for rate in self.rates
            if self.converges(algorithm, batch, rate)
        }


def table(corpus: Corpus) -> str:
    """A line per batch and algorithm, a column per rate; the median of the seeds that converged."""
    rows = [["batch", "algorithm", *(f"rate {rate:g}" for rate in corpus.rates)]]
    for batch, algorithm in product(corpus.batches, ALGORITHMS):
        shown = (_cell(corpus.at(algorithm, batch, rate)) for rate in corpus.rates)
        rows.append([str(batch), algorithm, *shown])
    one = corpus.outcomes[0]
    seeds = len({o.seed for o in corpus.outcomes})
    return "\n".join(
        [
            f"{corpus.name}: held-out loss (nats) after the last epoch; {one.learners} learners, "
            f"{seeds} seed{'s' * (seeds > 1)}, medians of those that converged",
            *aligned(rows, left=2),
            f"rates are those of batch {one.batch * one.rate / one.peak_rate:g} and grow with the "
            f"batch; guessing: {one.prior_loss:.3f} by class frequency, ln {one.classes} = "
            f"{math.log(one.classes):.3f}",
        ]
    )


def _cell(outcomes: Sequence[Outcome]) -> str:
    losses = [o.loss for o in outcomes if o.converged]
    part = f" ({len(losses)}/{len(outcomes)})" if 0 < len(losses) < len(outcomes) else ""
    if losses:
        return f"{median(losses):.3f}{part}"
    return "diverged" if any(math.isinf(o.loss) for o in outcomes) else NOT_ABOVE


def statements(corpus: Corpus) -> list[str]:
    """Where one algorithm converges and the other does not, and which is better at its best."""
    said = []
    for algorithm, other in (ALGORITHMS, ALGORITHMS[::-1]):
        where = [
            f"batch {batch} at {rate:g}"
            for batch, rate in product(corpus.batches, corpus.rates)
            if corpus.converges(other, batch, rate) and not corpus.converges(algorithm, batch, rate)
        ]
        said.append(f"{other} converges, {algorithm} does not: {', '.join(where) or 'nowhere'}")
    for batch in corpus.batches:
        best = (f"{name} {_best(corpus.losses(name, batch))}" for name in ALGORITHMS)
        said.append(f"best at batch {batch}: {', '.join(best)}")
    return said


def _best(losses: dict[float, float]) -> str:
    if not losses:
        return "converges at no rate"
    rate = min(losses, key=lambda r: losses[r])
    return f"{losses[rate]:.3f} at {rate:g}"


def report(corpora: Sequence[Corpus], folder: StudyFolder) -> None:
    """Prints tables, statements and the paper's numbers; table.csv has a row per run."""
    for corpus in corpora:
        print("", table(corpus), *statements(corpus), sep="\n")
    for numbers in find("a.table4")[1].numbers:
        print("", *printed(numbers), sep="\n")
    head = ["corpus", *(field.name for field in fields(Outcome)), "converged"]
    rows = [[c.name, *astuple(o), o.converged] for c in corpora for o in c.outcomes]
    folder.write_csv("table.csv", [head, *rows])
