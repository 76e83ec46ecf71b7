"""Recipes that name functions and classes of a user's own, and what of them a run keeps."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hpcddl.common import references
from hpcddl.common.errors import UserError
from hpcddl.common.options import options_of
from hpcddl.models import MODELS
from hpcddl.optimizers import OPTIMIZERS
from hpcddl.run.config import load_config
from tests.conftest import ROOT, Launch
from tests.synthetic import write_shards

NET = """
import torch
from torch import nn

import beside


class Net(nn.Module):
    def __init__(self, shape, classes, hidden: int = 8, activation="relu", scale=None):
        super().__init__()
        self.first = nn.Linear(shape[-1], hidden + beside.MORE)
        self.last = nn.Linear(hidden + beside.MORE, classes)
        self.activation = getattr(torch, activation)

    def forward(self, features):
        return self.last(self.activation(self.first(features)))


def fixed(*, outputs: int, width=4):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, outputs))


def anything(**options):
    return nn.Linear(6, options["outputs"])


def halving(global_batch, epochs, *, rate: float, every: float = 1.0):
    return lambda epoch: rate * 0.5 ** (epoch // every)


def flat(learners, seed):
    from hpcddl.communication.topology import full
    return full(learners, seed)


def mean(model, local, world, seed, *, steps: int = 3):
    from hpcddl.strategies.local_sgd import LocalSGD
    return LocalSGD(model, local, world, seed, steps=steps)


number = 3
"""
RECIPE = """
seed: 5
epochs: 2
global_batch: 24
model: {name: net.py:Net, hidden: 12}
data: {name: shards, path: SHARDS}
optimizer: {name: torch.optim:AdamW, betas: [0.9, 0.98]}
schedule: {name: constant, rate: 0.01}
strategy: ssgd
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("own") / "shards")


@pytest.fixture
def folder(tmp_path: Path, shards: Path) -> Path:
    """A recipe with a file of code beside it, which imports another."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "beside.py").write_text("MORE = 4\n")
    (tmp_path / "r.yaml").write_text(RECIPE.replace("SHARDS", str(shards)))
    return tmp_path


def fault(folder: Path, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(str(folder / "r.yaml"), words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_relative_to_its_recipe_and_a_word_to_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    config = load_config(str(folder / "r.yaml"))
    assert config.model.name == f"{folder}/net.py:Net"
    word = f"model={folder.name}/net.py:fixed"
    config = load_config(str(folder / "r.yaml"), [word, "model.outputs=10"])
    assert config.model.name == f"{folder}/net.py:fixed"
    assert config.model.options == {"outputs": 10}


def test_options_are_those_of_the_signature(folder: Path) -> None:
    """A declared type reads the text; else it is read as it looks. Only given ones are kept."""
    words = ["model.activation=tanh", "model.scale=2.5"]
    config = load_config(str(folder / "r.yaml"), words)
    assert config.model.options == {"hidden": 12, "activation": "tanh", "scale": 2.5}
    model = config.model.build(MODELS, (5, 6), 10)
    assert model.first.weight.shape == (16, 6)
    words = [f"model={folder}/net.py:anything", "model.outputs=7", "model.more=[1, x, 1e-3, true]"]
    config = load_config(str(folder / "r.yaml"), words)
    assert config.model.options == {"outputs": 7, "more": [1, "x", 0.001, True]}
    assert config.model.build(MODELS, (6,), 10).weight.shape == (7, 6)


def test_what_cannot_be_named_is_one_line(folder: Path) -> None:
    (folder / "raises.py").write_text("import os\n\n1 / 0\n")
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "lost.py").write_text("import no_such_module_anywhere\n")
    for word, message in (
        (f"model={folder}/none.py:Net", "none.py: No such file or directory"),
        (f"model={folder}/net.py:Nett", "has no 'Nett'; nearest: 'Net'"),
        (f"model={folder}/net.py:number", "must be a function or a class"),
        (f"model={folder}/raises.py:f", "raises.py, line 3: its code raises ZeroDivisionError"),
        (f"model={folder}/broken.py:f", "broken.py, line 1: its code raises SyntaxError"),
        (f"model={folder}/lost.py:f", "line 1: its code raises ModuleNotFoundError: No module"),
        ("model=no_such_module:Net", "there is no module 'no_such_module'; fix: install it"),
        ("model=torch.nn.none:Net", "there is no module 'torch.nn.none'"),
        ("model=Net", "'Net' is not one of bilstm"),
        ("model=torch.nn:", "is not one of bilstm"),
        ("model.hiden=3", "model: unknown key 'hiden'; nearest: 'hidden'"),
        ("model.hidden=x", "model.hidden=x: must be a whole number"),
        (f"model={folder}/net.py:fixed", "model.outputs: missing, and it has no default"),
        ("optimizer.lr=1", "optimizer: unknown key 'lr'"),
    ):
        assert message in fault(folder, word), word


def test_every_table_takes_one(folder: Path, command: Launch) -> None:
    """Those that are called as our own are: schedule, strategy and topology."""
    own = f"{folder}/net.py:"
    wrong = f"schedule={{name: '{own}anything', outputs: 3}}"
    done = command("train", folder / "r.yaml", wrong, "--out", folder / "wrong")
    assert done.returncode == 2
    assert "anything must return a function of the epoch" in done.stderr
    words = [
        f"schedule={{name: '{own}halving', rate: 0.2}}",
        f"strategy={{name: dpsgd, topology: '{own}flat'}}",
    ]
    run = folder / "run"
    done = command("train", folder / "r.yaml", *words, "--out", run)
    assert done.returncode == 0, done.stderr
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    rates = [record["learning_rate"] for record in records if record["kind"] == "train"]
    assert rates[0] == 0.2
    assert rates[-1] == 0.1
    kept = yaml.safe_load((run / "config.yaml").read_text())
    assert kept["strategy"]["topology"]["name"].startswith("source/")
    own_strategy = f"strategy={{name: '{own}mean', steps: 2}}"
    done = command("train", folder / "r.yaml", own_strategy, "--out", folder / "other")
    assert done.returncode == 0, done.stderr
    assert "H = 2" in done.stdout


@pytest.mark.parametrize("name", ["AdamW", "Adam", "RMSprop", "Adagrad", "NAdam"])
def test_optimizers_of_torch(name: str) -> None:
    """Steps are torch's own, at the schedule's rate; batch norm's weights do not decay."""
    torch.manual_seed(0)
    models = [torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)) for _ in "12"]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        model.double()
    entry = OPTIMIZERS.own(references.load(f"torch.optim:{name}"))
    assert "lr" not in options_of(entry).model_fields
    ours = entry(models[0], weight_decay=0.1)
    norm = list(models[1][1].parameters())
    theirs = getattr(torch.optim, name)(
        [
            {"params": list(models[1][0].parameters()), "weight_decay": 0.1},
            {"params": norm, "weight_decay": 0.0},
        ],
        lr=0.05,
    )
    x = torch.randn(8, 3, dtype=torch.float64)
    for _ in range(3):
        for model, optimizer in zip(models, (ours, theirs), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = 0.05
            optimizer.zero_grad()
            model(x).pow(2).sum().backward()
            optimizer.step()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shards: Path, hpcddl: Launch) -> Path:
    """A run of two learners; the code that it was begun with is gone."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "net.py").write_text(NET)
    (folder / "beside.py").write_text("MORE = 4\n")
    (folder / "r.yaml").write_text(RECIPE.replace("SHARDS", str(shards)))
    words = ["strategy={name: dpsgd, topology: ring}", "--out", folder / "run"]
    done = hpcddl("train", folder / "r.yaml", *words, ranks=2)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_keeps_what_it_needs(trained: Path) -> None:
    run = trained / "run"
    name = yaml.safe_load((run / "config.yaml").read_text())["model"]["name"]
    assert name.startswith("source/")
    assert name.endswith("/net.py:Net")
    kept = run / Path(name).parent
    assert sorted(path.name for path in kept.glob("*.py")) == ["beside.py", "net.py"]
    assert (kept / "net.py").read_text() == NET
    modules = json.loads((run / "source" / "modules.json").read_text())
    assert modules["torch.optim"]["version"] == torch.__version__


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "RUN", "--json"),
        ("export", "RUN", "--out", "TMP/net.safetensors"),
        ("export", "RUN", "--out", "TMP/net.pt2"),
        ("analyze", "curvature", "RUN", "--top", "1", "--samples", "8"),
        ("analyze", "landscape", "RUN", "--points", "3", "--samples", "8"),
        ("analyze", "interpolate", "RUN", "RUN", "--points", "2", "--samples", "8"),
        ("compare", "RUN", "RUN", "--out", "TMP/c.png"),
        ("report", "RUN", "--out", "TMP/page"),
        ("train", "RUN/config.yaml", "--smoke"),
        ("train", "RUN/config.yaml", "epochs=3", "--out", "TMP/again"),
    ],
    ids=" ".join,
)
def test_every_command_takes_the_run(
    trained: Path, tmp_path: Path, command: Launch, words: tuple[str, ...]
) -> None:
    """From its folder alone, wherever that lies."""
    run = tmp_path / "moved"
    shutil.copytree(trained / "run", run)
    own = [word.replace("RUN", str(run)).replace("TMP", str(tmp_path)) for word in words]
    done = command(*own)
    assert done.returncode == 0, done.stderr


def test_it_goes_on_bit_for_bit(trained: Path, tmp_path: Path, hpcddl: Launch) -> None:
    """With its own code at another place, and after another run's with neighbours of one name."""
    for name in ("run", "net.py", "beside.py", "r.yaml"):
        copy = shutil.copytree if (trained / name).is_dir() else shutil.copy
        copy(trained / name, tmp_path / name)
    words = ["strategy={name: dpsgd, topology: ring}", "epochs=3", "--resume"]
    weights = []
    for out in ("run", "fresh"):
        done = hpcddl("train", tmp_path / "r.yaml", *words, "--out", tmp_path / out, ranks=2)
        assert done.returncode == 0, done.stderr
        weights.append(json.loads((tmp_path / out / "summary.json").read_text())["weights_sha256"])
    assert weights[0] == weights[1]


def test_code_that_has_changed_is_named(trained: Path, tmp_path: Path, command: Launch) -> None:
    for name in ("net.py", "r.yaml"):
        shutil.copy(trained / name, tmp_path / name)
    (tmp_path / "beside.py").write_text("MORE = 5\n")
    words = ["strategy={name: dpsgd, topology: ring}", "--resume", "--out", trained / "run"]
    done = command("train", tmp_path / "r.yaml", "epochs=3", *words)
    assert done.returncode == 2
    assert f"{tmp_path}/net.py, or beside.py beside it, has changed since" in done.stderr


def test_a_module_that_has_changed_is_a_warning(
    tmp_path: Path, shards: Path, command: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not kept, as a package may be large; its file's checksum is."""
    monkeypatch.syspath_prepend(tmp_path)
    text = NET.replace("import beside\n", "").replace("beside.MORE", "4")
    (tmp_path / "own_module_of_a_test.py").write_text(text)
    (tmp_path / "r.yaml").write_text(
        RECIPE.replace("SHARDS", str(shards)).replace("net.py:Net", "own_module_of_a_test:Net")
    )
    run = tmp_path / "run"
    assert command("train", tmp_path / "r.yaml", "--out", run).returncode == 0
    assert command("evaluate", run).stderr == ""
    with open(tmp_path / "own_module_of_a_test.py", "a") as file:
        file.write("# more\n")
    done = command("evaluate", run)
    assert done.returncode == 0
    assert "module own_module_of_a_test has changed since the run began" in done.stderr


def test_the_example_of_the_documentation(
    tmp_path: Path, command: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "own-code.md").read_text()
    blocks = re.findall(r"```(?:yaml|python)\n# ([a-z.]+).*?\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in blocks] == ["r.yaml", "net.py"]
    for name, content in blocks:
        Path(name).write_text(content)
    words = ["--synthetic", "512", "--out", "shards/mine"]
    assert command("prep", "mnist", *words).returncode == 0
    (line,) = re.findall(r"^    mpirun -np 4 hpcddl (train .*)$", text, re.MULTILINE)
    done = command(*line.split(), "epochs=1")
    assert done.returncode == 0, done.stderr


def test_two_copies_of_a_file_keep_their_own_neighbours(tmp_path: Path) -> None:
    for name, more in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text(NET)
        (tmp_path / name / "beside.py").write_text(f"MORE = {more}\n")
    widths = [
        references.load(f"{tmp_path}/{name}/net.py:Net")((6,), 10, hidden=1).first.out_features
        for name in "ab"
    ]
    np.testing.assert_array_equal(widths, [2, 3])
    assert "beside" not in sys.modules
