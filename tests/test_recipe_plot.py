"""`hpcddl recipes NAME --plot`: what the picture of a learning rate shows."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from hpcddl.commands.recipe_plot import draw_schedule
from hpcddl.recipes import names
from hpcddl.run.config import load_config
from tests.conftest import Launch


def test_draws_the_rates_that_training_will_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The curve is the schedule's; warm-up and first decay stand where paper A puts them."""
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    draw_schedule(load_config("swb300.dpsgd"), "swb300.dpsgd", tmp_path / "rate.png")
    (axis,) = drawn[0].axes
    curve, decay = axis.lines
    assert curve.get_ydata().max() == pytest.approx(0.8, rel=1e-3)
    assert curve.get_ydata()[0] == pytest.approx(0.1)
    assert list(decay.get_xdata()) == [10, 10]
    assert axis.patches[0].get_width() == 10
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "learning rate")
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert words == ["learning rate", "warm-up, 0.1 to 0.8", "first decay, epoch 10"]


def test_a_constant_rate_has_nothing_to_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    config = load_config("mini.ssgd", ["schedule={name: constant, rate: 0.3}"])
    draw_schedule(config, "mini.ssgd", tmp_path / "rate.png")
    (axis,) = drawn[0].axes
    assert set(axis.lines[0].get_ydata()) == {0.3}
    assert (len(axis.lines), len(axis.patches)) == (1, 0)


@pytest.mark.parametrize("name", [names()[0], names()[-1]])
def test_prints_the_path(name: str, tmp_path: Path, command: Launch) -> None:
    done = command("recipes", name, "--plot", tmp_path / "rate.svg")
    assert (done.returncode, done.stdout) == (0, f"picture: {tmp_path / 'rate.svg'}\n")
    assert (tmp_path / "rate.svg").read_text().count("<svg") == 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--plot", "mini.ssgd"], "--plot: needs the recipe first"),
        (["mini.ssgd", "--plot", "rate.docx"], "--plot rate.docx: must end in one of"),
        (["mini.ssgd", "--plot", "/nowhere/rate.png"], "No such file or directory"),
        (["mini.sgd", "--plot"], "'mini.sgd': must be a YAML file or one of"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(words: list[str], error: str, command: Launch) -> None:
    done = command("recipes", *words)
    assert done.returncode == 2
    assert error in done.stderr
    assert done.stderr.count("\n") == 1
