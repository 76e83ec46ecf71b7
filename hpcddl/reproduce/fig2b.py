"""`hpcddl reproduce fig2b`: a rate at which all converge (paper A sec. 2.2, fig. 2b)."""

from statistics import fmean

from hpcddl.common.study import verdicts
from hpcddl.reproduce.fig2 import command_of
from hpcddl.reproduce.fig2_report import Panel, PanelStudy, error_percent


def statements(study: PanelStudy) -> list[str]:
    """What section 2.2 says, and whether it is so here."""
    seeds = len(study.runs["SSGD"])
    ssgd, dpsgd = study.converged("SSGD"), study.converged("DPSGD")
    errors = study.medians(error_percent)
    losses = study.medians(lambda run: run.loss)
    noises = study.medians(lambda run: fmean(m.noise for m in run.measurements))
    return verdicts(
        {
            "SSGD and DPSGD both converge": (
                min(2 * ssgd, 2 * dpsgd) > seeds,
                f"{ssgd} and {dpsgd} of {seeds} seeds",
            ),
            "to a similar training loss": (
                1 / 1.5 < losses["DPSGD"] / losses["SSGD"] < 1.5,
                f"{losses['SSGD']:.3g} and {losses['DPSGD']:.3g}",
            ),
            "DPSGD's noise is the higher one": (
                noises["DPSGD"] > noises["SSGD"],
                f"mean Delta {noises['DPSGD']:.2g} against {noises['SSGD']:.2g}",
            ),
            "DPSGD has a lower test error than SSGD (2.3 % against 2.6 %)": (
                errors["DPSGD"] < errors["SSGD"],
                f"median {errors['DPSGD']:.2f} % against {errors['SSGD']:.2f} %",
            ),
            "SSGD* is worse than both (3.9 %)": (
                errors["SSGD*"] > max(errors["SSGD"], errors["DPSGD"]),
                f"median {errors['SSGD*']:.2f} %",
            ),
        }
    )


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
add_arguments, run = command_of(PANEL)
