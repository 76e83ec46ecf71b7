"""`hpcddl reproduce fig2a`: a rate too high for SSGD (paper A sec. 2.1, fig. 2a)."""

from hpcddl.common.study import verdicts
from hpcddl.reproduce.fig2 import command_of
from hpcddl.reproduce.fig2_report import Panel, PanelStudy, error_percent


def statements(study: PanelStudy) -> list[str]:
    """What section 2.1 says, and whether it is so here."""
    seeds = len(study.runs["SSGD"])
    ssgd, dpsgd, star = (study.converged(name) for name in ("SSGD", "DPSGD", "SSGD*"))
    early, late = study.medians(study.early), study.medians(study.late)
    errors = study.medians(error_percent)
    return verdicts(
        {
            "SSGD fails to converge": (2 * ssgd < seeds, f"{ssgd} of {seeds} seeds converge"),
            "DPSGD converges": (2 * dpsgd > seeds, f"{dpsgd} of {seeds} seeds"),
            "alpha_e is reduced in DPSGD early in training, while SSGD's remains near alpha": (
                early["DPSGD"] < 0.9 < early["SSGD"] < 1.1,
                f"alpha_e/alpha {early['DPSGD']:.2f} against {early['SSGD']:.2f}",
            ),
            "DPSGD's alpha_e increases back to about alpha later": (
                late["DPSGD"] > 0.9,
                f"from {early['DPSGD']:.2f} to {late['DPSGD']:.2f}",
            ),
            "with fine-tuned noise SSGD* converges, to a much worse solution than DPSGD's": (
                2 * star > seeds and errors["SSGD*"] > 1.5 * errors["DPSGD"],
                f"{star} of {seeds} seeds converge; median test error {errors['SSGD*']:.1f} % "
                f"against {errors['DPSGD']:.1f} %",
            ),
            "SSGD*'s alpha_e stays reduced in the later stage": (
                late["SSGD*"] < 0.9,
                f"alpha_e/alpha {late['SSGD*']:.2f}",
            ),
        }
    )


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
add_arguments, run = command_of(PANEL)
