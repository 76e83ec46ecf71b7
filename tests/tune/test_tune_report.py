"""What is said of a search's trials, from made-up ones."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpcddl.common.errors import UserError
from hpcddl.common.study import StudyFolder
from hpcddl.tune.finished_search import carry_out
from hpcddl.tune.picture import draw
from hpcddl.tune.report import table, verdict, write
from hpcddl.tune.searches import Point, Search, factor_grid, gradient_noise_grid
from hpcddl.tune.trials import Trainer, Trial, TrialRun

Losses = dict[tuple[float, int], float | None]  # by rate and seed; None: diverged
ALONE = 2**-6  # the rate that a single learner was trained at, the others two


@dataclass(frozen=True)
class Pretended(Trainer):
    """Runs that are known beforehand; a loss that is not given is 1 + rate."""

    losses: Losses = field(default_factory=dict)

    def train(self, point: Point) -> Trial:
        (rate,) = point.values()
        runs = [(seed, self.losses.get((rate, seed), 1 + rate)) for seed in self.seeds]
        learners = 1 if rate == ALONE else 2
        return Trial(point, tuple(TrialRun(s, "", learners, x is None, x, 0.25) for s, x in runs))


def trainer(out: Path, losses: Losses) -> Trainer:
    launcher = ("mpirun", "-np", "2")
    return Pretended(
        "mini.dpsgd", ("epochs=2", "schedule.rate=4"), range(4, 7), launcher, out, losses
    )


def grid(most: int = 20, accepted=lambda point: True) -> Search:
    return factor_grid("schedule.rate", 1.0, 2.0, accepted, most)


# One lucky seed does not win, nor does one that diverged lose.
LOSSES = {
    (0.5, 4): 9.0,
    (0.5, 5): 0.1,
    (0.5, 6): 9.0,
    (1.0, 4): None,
    (1.0, 5): 1.5,
    (1.0, 6): 1.0,
    (2.0, 4): None,
    (2.0, 5): None,
    (2.0, 6): 0.5,
}


def test_the_median_over_the_seeds_decides(tmp_path: Path) -> None:
    study = carry_out(grid(), trainer(tmp_path, LOSSES), "heldout_loss")
    assert table(study) == (
        "rate  median heldout_loss                      seed 4                      seed 5"
        "                      seed 6\n"
        "   1               1.5000                    diverged  loss 1.5000, error 25.00 %"
        "  loss 1.0000, error 25.00 %\n"
        " 0.5               9.0000  loss 9.0000, error 25.00 %  loss 0.1000, error 25.00 %"
        "  loss 9.0000, error 25.00 %\n"
        "   2                    -                    diverged                    diverged"
        "  loss 0.5000, error 25.00 %"
    )
    assert verdict(study) == (
        "best: rate 1, inside the grid\n"
        "mpirun -np 2 hpcddl train mini.dpsgd epochs=2 schedule.rate=1.0"
    )
    folder = StudyFolder(tmp_path)
    write(study, folder)
    draw(study, folder)
    written = json.loads((tmp_path / "tune.json").read_text())
    assert written["best"]["point"] == {"schedule.rate": 1.0}
    assert [trial["heldout_loss"] for trial in written["trials"]] == [1.5, 9.0, None]
    assert written["trials"][2]["runs"][0]["heldout_loss"] is None
    assert (tmp_path / "tune.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("search", "why"),
    [
        (
            grid(most=3),
            "rate 0.5, ON THE EDGE of the grid (schedule.rate): --trials 3 ended its growth",
        ),
        (
            grid(accepted=lambda point: point["schedule.rate"] > 0.2),
            "rate 0.25, ON THE EDGE of the grid (schedule.rate): the recipe allows no value beyond",
        ),
    ],
)
def test_a_best_on_the_edge_is_never_silent(search: Search, why: str, tmp_path: Path) -> None:
    """The loss falls with the rate without end."""
    assert why in verdict(carry_out(search, trainer(tmp_path, {}), "heldout_loss"))


def test_of_two_rates_as_good_the_smaller_is_taken(tmp_path: Path) -> None:
    losses = {(rate, seed): max(3.0, abs(rate - 1)) for rate in (0.5, 1, 2) for seed in range(9)}
    losses |= {(0.25, seed): 4.0 for seed in range(9)}
    study = carry_out(grid(), trainer(tmp_path, losses), "heldout_loss")
    assert study.trials[0].point == {"schedule.rate": 0.5}


def test_when_all_diverge_there_is_no_best(tmp_path: Path) -> None:
    losses = {(2.0**-k, seed): None for k in range(-1, 5) for seed in range(9)}
    study = carry_out(grid(most=5), trainer(tmp_path, losses), "heldout_loss")
    assert verdict(study) == "all 5 trials diverged"
    folder = StudyFolder(tmp_path)
    write(study, folder)
    draw(study, folder)
    assert json.loads((tmp_path / "tune.json").read_text())["best"] is None


def test_a_trial_that_only_guesses_is_no_best_and_has_not_diverged(tmp_path: Path) -> None:
    class Guessing(Trainer):
        def train(self, point: Point) -> Trial:
            return Trial(point, (TrialRun(4, "", 2, False, 2.3, 0.9, not_above_chance=True),))

    out = Guessing(
        "mini.dpsgd",
        (),
        [4],
        ("env",),
        tmp_path,
    )
    study = carry_out(grid(most=2), out, "heldout_loss")
    assert verdict(study) == "none of the 2 trials is better than guessing"
    assert table(study).splitlines()[1].split() == ["0.5", "-", "not", "above", "chance"]
    draw(study, StudyFolder(tmp_path))


def test_runs_of_other_numbers_of_learners_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"are of \[1, 2\] learners; give another --out"):
        carry_out(grid(), trainer(tmp_path, {}), "heldout_loss")


def test_both_keys_of_the_isotropic_noise_are_looked_at(tmp_path: Path) -> None:
    """The best gamma' is the paper's largest, the best eta inside."""

    class Isotropic(Trainer):
        def train(self, point: Point) -> Trial:
            eta, gamma = point.values()
            return Trial(point, (TrialRun(0, "", 2, False, abs(eta - 1e-5) * 1e5 - gamma, 0.1),))

    trainer = Isotropic("mini.ssgd", (), range(1), ("env",), tmp_path)
    study = carry_out(gradient_noise_grid(), trainer, "heldout_loss")
    assert len(study.trials) == 24
    assert verdict(study).startswith(
        "best: eta 1e-05, gamma 3, ON THE EDGE of the grid (gradient_noise.gamma): "
        "the paper's search ends there\n"
    )
    draw(study, StudyFolder(tmp_path))
