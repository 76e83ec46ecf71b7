"""Loops of one's own: a Learner does what its strategy does; no rule of use breaks in silence."""

import copy
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hpcddl import BatchSampler, Learner, UserError
from hpcddl.cluster.world import World
from hpcddl.common.options import From
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.optimizers.sign import SignSGD
from hpcddl.own_loop import learner as learner_module
from hpcddl.own_loop import sampler as sampler_module
from hpcddl.strategies import STRATEGIES

STEPS = 5
CASES: dict[str, dict[str, Any]] = {
    "ssgd": {},
    "dpsgd": {"topology": "ring"},
    "dpsgd delayed": {"topology": "ring", "delayed": True},
    "dpsgd super_learners": {"super_learners": 2},
    "local_sgd": {"steps": 2},
    "local_sgd after": {"steps": 2, "after": 2},
    "majority_vote": {},
}


@pytest.fixture(autouse=True)
def this_world(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (learner_module, sampler_module):
        monkeypatch.setattr(module, "init", lambda: world)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def batch(world: World, step: int, size: int = 6) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1000 * step + world.rank)
    x = torch.randn(size, 5, generator=draws, dtype=torch.float64)
    return x, torch.randn(size, 2, generator=draws, dtype=torch.float64)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01)


def optimizer_of(case: str) -> Callable[[Any], torch.optim.Optimizer]:
    return partial(SignSGD, lr=0.01) if case == "majority_vote" else adam


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def learner_of(case: str, model: nn.Module, **more: Any) -> Learner:
    if learner_module.init().size % CASES[case].get("super_learners", 1):
        pytest.skip("super-learners of two need an even number of ranks")
    return Learner(model, optimizer_of(case), case.split()[0], **CASES[case], **more)


def update(learner: Learner, step: int) -> None:
    x, y = batch(learner.world, step)
    with learner.step(step):
        nn.functional.mse_loss(learner.model(x), y).backward()


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize("case", CASES)
def test_a_learner_does_what_its_strategy_does(case: str, world: World) -> None:
    model = network()
    if world.rank:
        nn.init.ones_(model[0].weight)  # whatever ranks begin with, rank 0's is taken
    learner = learner_of(case, model)
    other = network()
    optimizer = optimizer_of(case)(other.parameters())
    choice = From(STRATEGIES).choose({"name": case.split()[0], **CASES[case]})
    strategy = choice.build(STRATEGIES, other, GradientStep(optimizer), world, 0)
    for step in range(STEPS):
        update(learner, step)
        strategy.epoch = step
        optimizer.zero_grad()
        strategy.before_forward()
        x, y = batch(world, step)
        nn.functional.mse_loss(other(x), y).backward()
        strategy.update()
        assert torch.equal(weights(model), weights(other))
    assert learner.updates == STEPS
    every = torch.stack([torch.from_numpy(w) for w in world.comm.allgather(weights(model).numpy())])
    with learner.consensus():
        assert torch.allclose(weights(model), every.mean(0), rtol=0, atol=1e-12)
    assert torch.equal(weights(model), every[world.rank])


@pytest.mark.parametrize("case", CASES)
def test_micro_batches_make_the_same_update(case: str, world: World) -> None:
    models = [network(), network()]
    whole, parts = (learner_of(case, model) for model in models)
    for step in range(3):
        update(whole, step)
        x, y = batch(world, step)
        with parts.step(step):
            with parts.accumulate():
                (nn.functional.mse_loss(parts.model(x[:3]), y[:3]) / 2).backward()
            (nn.functional.mse_loss(parts.model(x[3:]), y[3:]) / 2).backward()
    assert torch.allclose(weights(models[0]), weights(models[1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_loop_goes_on_bit_for_bit(case: str, world: World, tmp_path: Path) -> None:
    first = learner_of(case, network())
    for step in range(3):
        update(first, step)
    random.seed(world.rank)
    np.random.seed(world.rank)  # noqa: NPY002
    first.save(tmp_path, {"epoch": 1.5, "words": ["a"], "mine": torch.tensor(world.rank)})
    expected = [random.random(), np.random.rand(), torch.rand(1).item()]  # noqa: NPY002
    for step in range(3, 6):
        update(first, step)
    model = network()
    second = learner_of(case, model)
    assert second.resume(tmp_path / "none") is None
    extra = second.resume(tmp_path)
    assert extra is not None
    assert (extra["epoch"], extra["words"], extra["mine"].item()) == (1.5, ["a"], world.rank)
    assert expected == [random.random(), np.random.rand(), torch.rand(1).item()]  # noqa: NPY002
    for step in range(3, 6):
        update(second, step)
    assert torch.equal(weights(model), weights(first.model))
    assert second.updates == 6


def test_other_ranks_go_on_from_the_mean(world: World, tmp_path: Path) -> None:
    """Here one learner alone takes up what two have written."""
    pair = learner_of("dpsgd", network())
    update(pair, 0)
    pair.save(tmp_path, {"step": 1})
    with pair.consensus():
        mean = weights(pair.model)
    alone = World(world.comm.Split(world.rank), world.node.Split(world.rank), world.device)
    model = network()
    single = copy.copy(pair)  # a Learner of the world of one rank
    single.model, single.world = model, alone
    choice = From(STRATEGIES).choose("dpsgd")
    local = GradientStep(adam(model.parameters()))
    single._strategy = choice.build(STRATEGIES, model, local, alone, 0)
    assert single.resume(tmp_path) == {"step": 1}
    assert torch.equal(weights(model), mean)


Misuse = Callable[[Learner, nn.Module], None]


def two_steps(learner: Learner, model: nn.Module) -> None:
    with learner.step(0), learner.step(0):
        pass


def no_backward(learner: Learner, model: nn.Module) -> None:
    with learner.step(0):
        pass


def own_step(learner: Learner, model: nn.Module) -> None:
    x, y = batch(learner.world, 0)
    nn.functional.mse_loss(model(x), y).backward()
    learner.optimizer.step()


def left_by_an_error(learner: Learner, model: nn.Module) -> None:
    try:
        with learner.step(0):
            raise KeyError
    except KeyError:
        update(learner, 0)


def other_weights(learner: Learner, model: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight.add_(learner.world.rank)
    update(learner, 0)


def saved_inside(learner: Learner, model: nn.Module) -> None:
    with learner.step(0):
        learner.save("nowhere")


def consensus_inside(learner: Learner, model: nn.Module) -> None:
    with learner.step(0), learner.consensus():
        pass


def scaled_without_a_scale(learner: Learner, model: nn.Module) -> None:
    learner.scale(torch.ones(()))


@pytest.mark.parametrize("case", ["ssgd", "dpsgd", "local_sgd"])
@pytest.mark.parametrize(
    ("misuse", "line"),
    [
        (two_steps, "must not begin before the one before is over"),
        (no_backward, "must have a backward pass inside"),
        (own_step, "fix: leave it out"),
        (left_by_an_error, "go on from a checkpoint"),
        (other_weights, "weights of rank 1 are not those of rank 0"),
        (saved_inside, "must be outside of step"),
        (consensus_inside, "must be outside of step"),
        (scaled_without_a_scale, "fix: loss_scale=True"),
    ],
)
def test_a_broken_rule_is_one_line(case: str, misuse: Misuse, line: str, world: World) -> None:
    model = network()
    learner = learner_of(case, model)
    with pytest.raises(UserError, match=line):
        misuse(learner, model)


def two_backward_passes(learner: Learner) -> None:
    x, y = batch(learner.world, 0)
    with learner.step():
        for _ in range(2):
            nn.functional.mse_loss(learner.model(x), y).backward()


def test_a_second_backward_pass_is_refused_where_gradients_are_averaged(world: World) -> None:
    """The first one's mean would be lost."""
    learner = learner_of("ssgd", network())
    with pytest.raises(UserError, match=r"fix: `with learner.accumulate\(\):`"):
        two_backward_passes(learner)


def test_an_epoch_is_not_forgotten(world: World) -> None:
    learner = learner_of("local_sgd after", network())
    with pytest.raises(UserError, match=r"fix: learner.step\(epoch\)"), learner.step():
        pass


@pytest.mark.parametrize(
    ("strategy", "options", "line"),
    [
        ("dpsdg", {}, "'dpsdg' is not one of ssgd, .* nearest: 'dpsgd'"),
        ("dpsgd", {"topology": "rng"}, "nearest: 'ring'"),
        ("dpsgd", {"topologi": "ring"}, "nearest: 'topology'"),
        ("local_sgd", {}, "steps: missing"),
        ("local_sgd", {"steps": 0}, "steps=0: must be"),
        ("local_sgd", {"steps": 2, "after": "first_decay"}, "must be an epoch"),
        ("local_sgd", {"steps": 2, "loss_scale": True}, None),
        ("majority_vote", {"loss_scale": True}, "cannot do without a step"),
    ],
)
def test_options_are_checked(
    strategy: str, options: dict[str, Any], line: str | None, world: World
) -> None:
    if line is None:
        assert Learner(network(), adam, strategy, **options).updates == 0
        return
    optimizer = optimizer_of(strategy)
    with pytest.raises(UserError, match=line):
        Learner(network(), optimizer, strategy, **options)


def test_the_optimizer_is_the_model_s(world: World) -> None:
    with pytest.raises(UserError, match=r"must be made of model.parameters\(\)"):
        Learner(network(), adam(network().parameters()), "dpsgd")
    model = network().requires_grad_(False)
    with pytest.raises(UserError, match="must have a parameter"):
        Learner(model, adam, "dpsgd")


@pytest.mark.ranks(1, 3)
def test_ranks_share_an_epoch(world: World) -> None:
    sampler = BatchSampler(range(20), batch=3, seed=5)
    epochs = [[list(sampler) for _ in range(2)] for _ in range(2)]
    assert sampler.epoch == 4
    taken = world.comm.allgather(epochs[0][0])
    flat = [i for batches in taken for one in batches for i in one]
    assert len(set(flat)) == len(flat) == 20 // (3 * world.size) * 3 * world.size
    assert len(sampler) == len(epochs[0][0])
    assert epochs[0][0] != epochs[0][1]
    sampler.start_at(1, 1)
    assert list(sampler) == epochs[0][1][1:]
    assert list(sampler) == epochs[1][0]
    with pytest.raises(UserError, match="the step from 0 to"):
        sampler.start_at(0, 100)
    with pytest.raises(UserError, match="global_batch="):
        BatchSampler(range(2), batch=3)
    with pytest.raises(UserError, match="batch=0: must be at least 1"):
        BatchSampler(range(2), batch=0)


def test_a_loss_scale_makes_the_same_steps(world: World) -> None:
    models = [network(), network()]
    plain, scaled = (
        learner_of("dpsgd", models[0]),
        learner_of("dpsgd", models[1], loss_scale=True),
    )
    for step in range(3):
        update(plain, step)
        x, y = batch(world, step)
        with scaled.step():
            scaled.scale(nn.functional.mse_loss(scaled.model(x), y)).backward()
    assert torch.equal(weights(models[0]), weights(models[1]))
    with pytest.raises(UserError, match="must scale the loss"):
        update(scaled, 0)


def test_a_scheduler_of_torch_sets_the_rate(world: World) -> None:
    model = network()
    learner = learner_of("dpsgd", model, clip_norm=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(learner.optimizer, 1, gamma=0.0)
    update(learner, 0)
    schedule.step()
    with learner.consensus():
        before = weights(model)
    update(learner, 1)
    with learner.consensus():
        assert torch.allclose(weights(model), before, rtol=0, atol=1e-12)
