"""`hpcddl reproduce fig2b`: a rate at which all converge (paper A sec. 2.2, fig. 2b)."""

import argparse

from hpcddl.reproduce import fig2
from hpcddl.reproduce.fig2_report import Panel, Study, verdict


def statements(study: Study) -> list[str]:
    """What section 2.2 says, and whether it is so here."""
    seeds = len(study.runs["SSGD"])
    ssgd, dpsgd = study.converged("SSGD"), study.converged("DPSGD")
    errors = {name: study.middle(name, lambda run: 100 * run.error) for name in study.runs}
    losses = {name: study.middle(name, lambda run: run.loss) for name in study.runs}
    noises = {name: study.middle(name, study.noise) for name in study.runs}
    return [
        verdict(
            "SSGD and DPSGD both converge",
            min(2 * ssgd, 2 * dpsgd) > seeds,
            f"{ssgd} and {dpsgd} of {seeds} seeds",
        ),
        verdict(
            "to a similar training loss",
            1 / 1.5 < losses["DPSGD"] / losses["SSGD"] < 1.5,
            f"{losses['SSGD']:.3g} and {losses['DPSGD']:.3g}",
        ),
        verdict(
            "DPSGD's noise is the higher one",
            noises["DPSGD"] > noises["SSGD"],
            f"mean Delta {noises['DPSGD']:.2g} against {noises['SSGD']:.2g}",
        ),
        verdict(
            "DPSGD has a lower test error than SSGD (2.3 % against 2.6 %)",
            errors["DPSGD"] < errors["SSGD"],
            f"median {errors['DPSGD']:.2f} % against {errors['SSGD']:.2f} %",
        ),
        verdict(
            "SSGD* is worse than both (3.9 %)",
            errors["SSGD*"] > max(errors["SSGD"], errors["DPSGD"]),
            f"median {errors['SSGD*']:.2f} %",
        ),
    ]


PANEL = Panel(
    name="fig2b",
    learners=6,
    rate=0.2,
    topology={"name": "ring", "neighbours": 2},
    updates=1000,
    paper={
        "SSGD": "2.6 % test error (sec. 2.2)",
        "DPSGD": "2.3 % test error (sec. 2.2)",
        "SSGD*": "3.9 % test error (sec. 2.2)",
    },
    statements=statements,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl reproduce fig2b`."""
    fig2.add_arguments(parser, PANEL)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the panel is written, whatever came out."""
    return fig2.run(arguments, PANEL)
