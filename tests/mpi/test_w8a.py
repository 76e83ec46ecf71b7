"""The study's learners in one process are the strategies on real ranks."""

from pathlib import Path

import numpy as np
import pytest
from torch.nn.functional import cross_entropy

from hpcddl.cli import main
from hpcddl.cluster.world import World
from hpcddl.data import DATASETS
from hpcddl.models import MODELS
from hpcddl.optimizers import OPTIMIZERS
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.reproduce.learners import local_sgd
from hpcddl.reproduce.logistic import read_logistic
from hpcddl.run.config import load_config
from hpcddl.strategies import STRATEGIES
from tests.mpi.dense import vector_of

SAMPLES, RATE, EPOCHS, SEED = 150, 2.0, 3, 7


@pytest.fixture
def shards(world: World, tmp_path: Path) -> Path:
    """As `hpcddl prep libsvm` makes them."""
    folder = tmp_path / "shards"
    if world.rank == 0:
        words = ["--synthetic", str(SAMPLES), "--features", "30", "--out", str(folder)]
        assert main(["prep", "libsvm", *words]) == 0
    world.comm.Barrier()
    return folder


CASES = [
    ("w8a.ssgd", 4, 1),
    ("w8a.local_sgd", 4, 1),
    ("w8a.local_sgd", 4, 5),
    ("w8a.local_sgd", 7, 2),
    ("w8a.local_sgd", 16, 16),
]


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize(("recipe", "batch", "steps"), CASES)
def test_the_recipe_computes_what_the_study_does(
    recipe: str, batch: int, steps: int, shards: Path, world: World
) -> None:
    """W(t) of every learner after every iteration over epochs' ends; SSGD is local SGD of H = 1."""
    changes = [f"strategy.steps={steps}"] if recipe == "w8a.local_sgd" else []
    data, decay = f"data.path={shards}", f"optimizer.weight_decay={1 / SAMPLES}"
    config = load_config(recipe, [data, decay, *changes])
    train_set, _ = config.data.build(DATASETS)
    model = config.model.build(MODELS, train_set.shape, train_set.classes).double()
    optimizer = config.optimizer.build(OPTIMIZERS, model)
    strategy = config.strategy.build(STRATEGIES, model, GradientStep(optimizer), world, SEED)
    expected = local_sgd(
        read_logistic(shards), learners=world.size, batch=batch, steps=steps, rate=RATE, seed=SEED
    )
    for group in optimizer.param_groups:
        group["lr"] = RATE
    for epoch in range(EPOCHS):
        order = train_set.order(SEED, epoch, rank=world.rank, ranks=world.size, batch=batch)
        for indices in order:
            features, labels = train_set.batch(indices)
            optimizer.zero_grad()
            strategy.before_forward()
            cross_entropy(model(features.double()), labels).backward()
            strategy.update()
            weights = next(expected)
            assert np.abs(weights).max() > 0.01
            np.testing.assert_allclose(vector_of(model), weights[world.rank], rtol=0, atol=1e-12)
