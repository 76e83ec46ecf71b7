"""`hpcddl reproduce fig2a`: a rate too high for SSGD (paper A sec. 2.1, fig. 2a)."""

import argparse

from hpcddl.reproduce import fig2
from hpcddl.reproduce.fig2_report import Panel, Study, verdict


def statements(study: Study) -> list[str]:
    """What section 2.1 says, and whether it is so here."""
    seeds = len(study.runs["SSGD"])
    ssgd, dpsgd, star = (study.converged(name) for name in ("SSGD", "DPSGD", "SSGD*"))
    early = {name: study.middle(name, study.early) for name in study.runs}
    late = {name: study.middle(name, study.late) for name in study.runs}
    errors = {name: study.middle(name, lambda run: 100 * run.error) for name in study.runs}
    return [
        verdict("SSGD fails to converge", 2 * ssgd < seeds, f"{ssgd} of {seeds} seeds converge"),
        verdict("DPSGD converges", 2 * dpsgd > seeds, f"{dpsgd} of {seeds} seeds"),
        verdict(
            "alpha_e is reduced in DPSGD early in training, while SSGD's remains near alpha",
            early["DPSGD"] < 0.9 < early["SSGD"] < 1.1,
            f"alpha_e/alpha {early['DPSGD']:.2f} against {early['SSGD']:.2f}",
        ),
        verdict(
            "DPSGD's alpha_e increases back to about alpha later",
            late["DPSGD"] > 0.9,
            f"from {early['DPSGD']:.2f} to {late['DPSGD']:.2f}",
        ),
        verdict(
            "with fine-tuned noise SSGD* converges, to a much worse solution than DPSGD's",
            2 * star > seeds and errors["SSGD*"] > 1.5 * errors["DPSGD"],
            f"{star} of {seeds} seeds converge; median test error {errors['SSGD*']:.1f} % against "
            f"{errors['DPSGD']:.1f} %",
        ),
        verdict(
            "SSGD*'s alpha_e stays reduced in the later stage",
            late["SSGD*"] < 0.9,
            f"alpha_e/alpha {late['SSGD*']:.2f}",
        ),
    ]


PANEL = Panel(
    name="fig2a",
    learners=5,
    rate=1.0,
    topology={"name": "full"},
    updates=600,
    paper={
        "SSGD": "fails to converge (sec. 2.1)",
        "DPSGD": "2.1 % test error (sec. 2.1)",
        "SSGD*": "5.7 % test error (sec. 2.1)",
    },
    statements=statements,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl reproduce fig2a`."""
    fig2.add_arguments(parser, PANEL)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the panel is written, whatever came out."""
    return fig2.run(arguments, PANEL)
