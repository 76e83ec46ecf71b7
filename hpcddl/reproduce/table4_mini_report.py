"""Held-out loss by batch and rate: the table, and where only one algorithm converges."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from hpcddl.common.files import write_whole
from hpcddl.common.table import aligned
from hpcddl.report.runs import Run

ALGORITHMS = ("SSGD", "DPSGD")


@dataclass(frozen=True)
class Trial:
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
    def converged(self) -> bool:
        """Whether it is better than guessing, evenly or by class frequency."""
        return self.loss < 0.98 * min(self.prior_loss, math.log(self.classes))


@dataclass(frozen=True)
class Corpus:
    """All trials on one corpus; its name is the sweep's."""

    name: str
    trials: list[Trial]

    def axes(self) -> tuple[list[int], list[float]]:
        """The batches and the rates, ascending."""
        trials = self.trials
        return sorted({t.batch for t in trials}), sorted({t.rate for t in trials})

    def at(self, algorithm: str, batch: int, rate: float) -> list[Trial]:
        """A trial per seed."""
        key = algorithm, batch, rate
        return [t for t in self.trials if (t.algorithm, t.batch, t.rate) == key]

    def cells(self) -> Iterator[tuple[int, float]]:
        """Every batch with every rate."""
        batches, rates = self.axes()
        return ((batch, rate) for batch in batches for rate in rates)


def trial(run: Run) -> Trial:
    """From the directory of a finished run."""
    config, summary = run.config, run.summary
    rate, batch = config["schedule"]["rate"], config["global_batch"]
    loss = summary["heldout_loss"]
    return Trial(
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


def converges(trials: Sequence[Trial]) -> bool:
    """Whether most seeds do."""
    return 2 * sum(t.converged for t in trials) > len(trials)


def table(corpus: Corpus) -> str:
    """A line per batch and algorithm, a column per rate; the median of the seeds that converged."""
    batches, rates = corpus.axes()
    rows = [["batch", "algorithm", *(f"rate {rate:g}" for rate in rates)]]
    for batch in batches:
        for algorithm in ALGORITHMS:
            shown = (_cell(corpus.at(algorithm, batch, rate)) for rate in rates)
            rows.append([str(batch), algorithm, *shown])
    one = corpus.trials[0]
    seeds = len({t.seed for t in corpus.trials})
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


def _cell(trials: Sequence[Trial]) -> str:
    losses = [t.loss for t in trials if t.converged]
    part = f" ({len(losses)}/{len(trials)})" if 0 < len(losses) < len(trials) else ""
    return (f"{median(losses):.3f}" if losses else "diverged") + part


def statements(corpus: Corpus) -> list[str]:
    """Where one algorithm converges and the other does not, and which is better at its best."""
    said = []
    for algorithm, other in (ALGORITHMS, ALGORITHMS[::-1]):
        where = [
            f"batch {batch} at {rate:g}"
            for batch, rate in corpus.cells()
            if converges(corpus.at(other, batch, rate))
            and not converges(corpus.at(algorithm, batch, rate))
        ]
        said.append(f"{algorithm} diverges and {other} converges: {', '.join(where) or 'nowhere'}")
    batches, rates = corpus.axes()
    for batch in batches:
        best = (_best(corpus, algorithm, batch, rates) for algorithm in ALGORITHMS)
        said.append(f"best at batch {batch}: {', '.join(best)}")
    return said


def _best(corpus: Corpus, algorithm: str, batch: int, rates: Sequence[float]) -> str:
    found = {}
    for rate in rates:
        trials = corpus.at(algorithm, batch, rate)
        if converges(trials):
            found[rate] = median(t.loss for t in trials if t.converged)
    if not found:
        return f"{algorithm} diverges at all rates"
    rate = min(found, key=lambda r: found[r])
    return f"{algorithm} {found[rate]:.3f} at {rate:g}"


def write(corpora: Sequence[Corpus], folder: Path) -> None:
    """table.csv: a row per trial."""
    text = io.StringIO()
    names = [field.name for field in fields(Trial)]
    writer = csv.DictWriter(text, ["corpus", *names, "converged"])
    writer.writeheader()
    for corpus in corpora:
        for t in corpus.trials:
            writer.writerow({"corpus": corpus.name, **asdict(t), "converged": t.converged})
    write_whole(folder / "table.csv", text.getvalue().encode())
