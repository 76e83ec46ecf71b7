"""Every strategy against the dense simulation, in float64, on however many ranks were started."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from hpcddl import optimizers
from hpcddl.cluster.world import AgreedError, World
from hpcddl.common.options import From
from hpcddl.communication.topology import TOPOLOGIES
from hpcddl.optimizers import sgd
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.optimizers.loss_scale import LossScale
from hpcddl.optimizers.noise import draw
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Strategy
from hpcddl.strategies.weight_noise import WeightNoise
from tests.mpi.dense import (
    Gossip,
    Local,
    Optimizer,
    Simulation,
    gradient,
    network,
    samples,
    vector_of,
)

BATCH, STEPS, SEED = 4, 7, 11
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
}
PAIRS = "pairs"  # super-learners of two learners; of all, where that does not go
# How each strategy is run here; the suite fails for an entry of the table that is missing.
CASES: dict[str, list[dict[str, Any]]] = {
    "ssgd": [{"name": "ssgd"}, {"name": "ssgd", "fusion_mib": 64}],
    "dpsgd": [
        *({"name": "dpsgd", "topology": {"name": name}} for name in TOPOLOGIES),
        {"name": "dpsgd", "topology": {"name": "ring"}, "steps": 3},
        {"name": "dpsgd", "topology": {"name": "one_peer_exponential"}, "steps": 2},
        {"name": "dpsgd", "topology": {"name": "ring"}, "delayed": True},
        {"name": "dpsgd", "topology": {"name": "full"}, "delayed": True},
        {"name": "dpsgd", "topology": {"name": "random_pair"}, "delayed": True},
        {"name": "dpsgd", "topology": {"name": "one_peer_exponential"}, "delayed": True},
        {"name": "dpsgd", "topology": {"name": "random_pair"}, "steps": 2, "delayed": True},
        {"name": "dpsgd", "topology": {"name": "ring"}, "super_learners": PAIRS},
        {"name": "dpsgd", "topology": {"name": "random_pair"}, "super_learners": 1},
        {"name": "dpsgd", "topology": {"name": "full"}, "super_learners": PAIRS, "steps": 2},
        {"name": "dpsgd", "topology": {"name": "ring"}, "super_learners": PAIRS, "delayed": True},
        {"name": "dpsgd", "topology": {"name": "ring"}, "exchange_dtype": "bfloat16"},
        {"name": "dpsgd", "topology": {"name": "full"}, "exchange_dtype": "float16"},
        {
            "name": "dpsgd",
            "topology": {"name": "random_pair"},
            "steps": 2,
            "delayed": True,
            "super_learners": PAIRS,
            "exchange_dtype": "float16",
        },
    ],
    "local_sgd": [
        {"name": "local_sgd", "steps": 1},
        {"name": "local_sgd", "steps": 3},
        {"name": "local_sgd", "steps": 2, "momentum": 0.5},
        {"name": "local_sgd", "steps": 2, "after": 3},
        {"name": "local_sgd", "steps": 2, "after": 2, "momentum": 0.3},
        {"name": "local_sgd", "steps": 1, "block_steps": 2, "block_size": 2},
        {"name": "local_sgd", "steps": 2, "block_steps": 2, "block_size": 3, "momentum": 0.4},
        {"name": "local_sgd", "steps": 4, "warmup": "linear", "warmup_epochs": 5},
        {"name": "local_sgd", "steps": 4, "warmup": "exponential", "warmup_epochs": 5, "after": 1},
        {"name": "local_sgd", "steps": 3, "warmup": "constant", "warmup_epochs": 3},
        {"name": "local_sgd", "steps": 1, "compression": "sign"},
        {"name": "local_sgd", "steps": 2, "compression": "sign", "momentum": 0.5},
        {"name": "local_sgd", "steps": 2, "compression": "sign", "error_feedback": False},
        {"name": "local_sgd", "steps": 2, "compression": "sign", "after": 3},
        {"name": "local_sgd", "steps": 1, "compression": "sign", "block_steps": 2, "block_size": 2},
        {
            "name": "local_sgd",
            "steps": 1,
            "compression": "sign",
            "after": 2,
            "block_steps": 2,
            "block_size": 2,
            "momentum": 0.4,
        },
        {"name": "local_sgd", "steps": 2, "compression": "uniform8"},
        {"name": "local_sgd", "steps": 1, "compression": "uniform8", "momentum": 0.3},
        {"name": "local_sgd", "steps": 2, "exchange_dtype": "bfloat16"},
        {"name": "local_sgd", "steps": 1, "exchange_dtype": "float16", "momentum": 0.3, "after": 2},
        {"name": "local_sgd", "steps": 3, "optimizer": "sign_sgd"},
        {
            "name": "local_sgd",
            "steps": 3,  # two opposite steps would leave nothing but rounding to take the sign of
            "compression": "sign",
            "error_feedback": False,
            "optimizer": "sign_sgd",
        },
    ],
    "majority_vote": [{"name": "majority_vote", "optimizer": "sign_sgd"}],
}
RUNS = [case for cases in CASES.values() for case in cases]


def label(case: dict[str, Any]) -> str:
    return "-".join(str(v["name"] if isinstance(v, dict) else v) for v in case.values())


def rate(step: int) -> float:
    return 0.3 if step < 4 else 0.1


def build(
    case: dict[str, Any], world: World, options: dict[str, Any], folder: Path, **local: Any
) -> Strategy:
    if case.get("topology", {}).get("name") == "from_file":
        case = {**case, "topology": {"name": "from_file", "path": str(mixing_file(world, folder))}}
    if case.get("super_learners") == PAIRS:
        case = {**case, "super_learners": pairs(world.size)}
    return learner(network(), case, world, options, **local)


def learner(
    model: torch.nn.Module,
    case: dict[str, Any],
    world: World,
    options: dict[str, Any],
    **local: Any,
) -> Strategy:
    """One strategy; `local` are further parts of its local step."""
    optimizer = optimizers.OPTIMIZERS[case.get("optimizer", "sgd")](model, **options)
    choice = From(STRATEGIES).choose({k: v for k, v in case.items() if k != "optimizer"})
    step = GradientStep(optimizer, **local)
    strategy: Strategy = choice.build(STRATEGIES, model, step, world, SEED)
    return strategy


def pairs(n: int) -> int:
    return n if n % 2 else 2


def mixing_file(world: World, folder: Path) -> Path:
    """A doubly stochastic matrix that is neither symmetric nor circulant."""
    path = folder / "A.txt"
    if world.rank == 0:
        random, n = np.random.default_rng(5), world.size
        weights = random.dirichlet(np.ones(4))
        matrix = sum(a * np.eye(n)[random.permutation(n)] for a in weights)
        np.savetxt(path, matrix)
    world.comm.Barrier()
    return path


def one_step(strategy: Strategy, x: Any, y: Any, step: int) -> None:
    for group in strategy.optimizer.param_groups:
        group["lr"] = rate(step)
    strategy.optimizer.zero_grad()
    strategy.epoch = float(step)
    strategy.before_forward()
    cross_entropy(strategy.model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
    strategy.update()


def batch(step: int, rank: int, same: bool = False) -> tuple[Any, Any]:
    return samples(BATCH, seed=100 * step + (0 if same else rank))


def run(strategy: Strategy, first: int = 0, last: int = STEPS, same: bool = False) -> None:
    for step in range(first, last):
        one_step(strategy, *batch(step, strategy.world.rank, same), step)


def all_weights(strategy: Strategy) -> np.ndarray:
    return np.array(strategy.world.comm.allgather(vector_of(strategy.model)))


def gossip_rule(strategy: Strategy, case: dict[str, Any]) -> Gossip | None:
    """The same options for the dense simulation, with the topology's own matrix."""
    if case["name"] != "dpsgd":
        return None
    kept = {key: case[key] for key in ("steps", "delayed", "exchange_dtype") if key in case}
    group = {PAIRS: pairs(strategy.world.size)}.get(str(case.get("super_learners")), 1)
    name = case["topology"]["name"]
    if name == "from_file":
        return Gossip(strategy.topology, **kept)
    return Gossip(TOPOLOGIES[name](strategy.world.size // group, SEED), group=group, **kept)


def local_rule(case: dict[str, Any]) -> Local | None:
    """The same options for the dense simulation; an epoch is a step here."""
    if case["name"] != "local_sgd":
        return None
    other = ("name", "steps", "warmup", "warmup_epochs", "optimizer")
    kept = {key: value for key, value in case.items() if key not in other}
    target, kind, epochs = case["steps"], case.get("warmup"), case.get("warmup_epochs", 0)
    table = {
        "linear": [1, 1, 2, 2, 3],  # 1 + 3 e / 5, rounded down
        "exponential": [1, 1, 1, 2, 2],  # doubled half-way
        "constant": [1] * 5,
        None: [],
    }[kind]
    return Local(lambda step: table[step] if step < epochs else target, **kept)


def simulate(
    strategy: Strategy, case: dict[str, Any], options: dict[str, Any], same: bool = False
) -> Simulation:
    n = strategy.world.size
    simulation = Simulation(
        np.tile(vector_of(network()), (n, 1)),
        [Optimizer(**options, sign="optimizer" in case) for _ in range(n)],
        gossip_rule(strategy, case),
        local_rule(case),
    )
    for step in range(STEPS):
        gradients = np.array(
            [gradient(simulation.weights[j], *batch(step, j, same)) for j in range(n)]
        )
        getattr(simulation, case["name"])(step, rate(step), gradients)
    return simulation


def test_every_strategy_has_a_case() -> None:
    assert set(CASES) == set(STRATEGIES)
    assert all(hasattr(Simulation, name) for name in STRATEGIES)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("case", RUNS, ids=label)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_agrees_with_the_dense_simulation(
    case: dict[str, Any], optimizer: str, world: World, tmp_path: Path
) -> None:
    """Identity 5 in matrix form, W(t+1) = A W(t) - alpha U(W(t)), and SSGD's rule (A eq. 1, 2)."""
    options = OPTIMIZERS[optimizer]
    strategy = build(case, world, options, tmp_path)
    run(strategy)
    expected = simulate(strategy, case, options).weights
    np.testing.assert_allclose(all_weights(strategy), expected, rtol=0, atol=1e-13)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_ssgd_is_one_learner_with_the_global_batch(
    optimizer: str, world: World, tmp_path: Path
) -> None:
    """Identity 1: n learners with batch B are one learner with batch nB."""
    options = OPTIMIZERS[optimizer]
    strategy = build({"name": "ssgd"}, world, options, tmp_path)
    run(strategy)
    w, single = vector_of(network()), Optimizer(**options)
    for step in range(STEPS):
        parts = [batch(step, j) for j in range(world.size)]
        x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        w = w - rate(step) * single.direction(w, gradient(w, x, y))
    np.testing.assert_allclose(all_weights(strategy), np.tile(w, (world.size, 1)), atol=1e-13)


@pytest.mark.ranks(2, 3, 4)
@pytest.mark.parametrize("case", CASES["dpsgd"], ids=label)
def test_consensus_takes_the_mean_step(case: dict[str, Any], world: World, tmp_path: Path) -> None:
    """Identity 5: w_a(t+1) = w_a(t) - alpha * mean_j u_j for every doubly stochastic A."""
    strategy = build(case, world, {}, tmp_path)
    for step in range(STEPS):
        before = all_weights(strategy)
        one_step(strategy, *batch(step, world.rank), step)
        mean = np.mean([gradient(before[j], *batch(step, j)) for j in range(world.size)], axis=0)
        after = all_weights(strategy).mean(0)
        np.testing.assert_allclose(after, before.mean(0) - rate(step) * mean, atol=1e-14)


@pytest.mark.ranks(2, 3, 4)
@pytest.mark.parametrize("case", CASES["dpsgd"], ids=label)
def test_identical_data_is_ssgd(case: dict[str, Any], world: World, tmp_path: Path) -> None:
    """Identity 5: with the same batch on every learner DPSGD is SSGD, and learners stay equal."""
    options = OPTIMIZERS["nesterov"]
    strategy, synchronous = (build(c, world, options, tmp_path) for c in (case, {"name": "ssgd"}))
    run(strategy, same=True)
    run(synchronous, same=True)
    weights = all_weights(strategy)
    assert (weights == weights[0]).all()
    np.testing.assert_allclose(weights, all_weights(synchronous), rtol=0, atol=1e-13)


@pytest.mark.parametrize("case", [cases[0] for cases in CASES.values()], ids=label)
def test_weight_noise_is_the_strategy_it_wraps(
    case: dict[str, Any], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every public attribute is the inner one's, also when it changes; every method reaches it."""
    inner = build(case, world, {"momentum": 0.9}, tmp_path, loss_scale=LossScale())
    noisy = WeightNoise(inner, 0.0, "per_learner", SEED)
    noisy.epoch, inner.step = 2.5, 7
    public = {name for name in dir(inner) if not name.startswith("_")}
    methods = {name for name in public if callable(getattr(type(inner), name, None))}
    for name in public - methods:
        assert getattr(noisy, name) is getattr(inner, name), name
    assert inner.epoch == 2.5
    reached = []
    contexts = {"accumulating", "consensus"}
    for name in methods:
        # As a context manager where one is wanted; the state that is loaded is not looked at.
        stand_in = nullcontext if name in contexts else str
        monkeypatch.setattr(
            inner, name, lambda *a, name=name, made=stand_in: (reached.append(name), made())[1]
        )
    for name in methods:
        result = getattr(noisy, name)(*([{}] if name == "load_state_dict" else []))
        if name in contexts:
            with result:
                pass
    assert set(reached) == methods


@pytest.mark.parametrize("reading", ["per_learner", "shared"])
@pytest.mark.parametrize("case", RUNS, ids=label)
def test_no_weight_noise_changes_nothing(
    case: dict[str, Any], reading: Any, world: World, tmp_path: Path
) -> None:
    """Identity 7: sigma = 0 is the strategy itself, in both readings."""
    plain = build(case, world, {"momentum": 0.9}, tmp_path)
    noisy = WeightNoise(build(case, world, {"momentum": 0.9}, tmp_path), 0.0, reading, SEED)
    run(plain)
    run(noisy)
    np.testing.assert_allclose(all_weights(noisy), all_weights(plain), rtol=0, atol=1e-14)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("reading", ["per_learner", "shared"])
def test_weight_noise_follows_its_rule(reading: Any, world: World, tmp_path: Path) -> None:
    """SSGD* (A sec. 2.1): gradients at w + xi_j, or the same xi added to every learner's w."""
    strategy = WeightNoise(build({"name": "ssgd"}, world, {}, tmp_path), 0.1, reading, SEED)
    run(strategy)
    w = vector_of(network())
    like = torch.zeros(1, dtype=torch.float64)
    for step in range(STEPS):
        xi = [draw(len(w), like, 0.1, SEED, step, j + 1).numpy() for j in range(world.size)]
        at = [w + xi[j] if reading == "per_learner" else w for j in range(world.size)]
        gradients = [gradient(at[j], *batch(step, j)) for j in range(world.size)]
        w = w - rate(step) * np.mean(gradients, axis=0)
        if reading == "shared":
            w = w + draw(len(w), like, 0.1, SEED, step + 1, 0).numpy()
    np.testing.assert_allclose(all_weights(strategy), np.tile(w, (world.size, 1)), atol=1e-13)


@pytest.mark.ranks(1, 3, 4)
@pytest.mark.parametrize("case", RUNS, ids=label)
def test_resumes_bit_for_bit(case: dict[str, Any], world: World, tmp_path: Path) -> None:
    """Stopped after 3 updates and loaded into new objects: the same weights by bits, and bytes."""
    whole = build(case, world, OPTIMIZERS["nesterov"], tmp_path)
    run(whole)
    first = build(case, world, OPTIMIZERS["nesterov"], tmp_path)
    run(first, last=3)
    saved = tmp_path / f"state-{world.rank}.pt"
    torch.save(first.state_dict(), saved)
    second = build(case, world, OPTIMIZERS["nesterov"], tmp_path)
    second.load_state_dict(torch.load(saved, weights_only=True))
    run(second, first=3)
    # Bitwise only where nothing is fused by timing.
    compare = (
        np.testing.assert_allclose if case.get("fusion_mib") else np.testing.assert_array_equal
    )
    compare(all_weights(second), all_weights(whole))
    sent = first.traffic.bytes_sent + second.traffic.bytes_sent
    assert sent == whole.traffic.bytes_sent


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize("case", RUNS, ids=label)
def test_consensus_is_the_mean_and_leaves_no_trace(
    case: dict[str, Any], world: World, tmp_path: Path
) -> None:
    """Inside `consensus` the model holds w_a; outside, its own weights bit for bit."""
    strategy = build(case, world, {}, tmp_path)
    run(strategy, last=3)
    before = all_weights(strategy)
    with strategy.consensus():
        inside = all_weights(strategy)
    np.testing.assert_allclose(inside, np.tile(before.mean(0), (world.size, 1)), atol=1e-15)
    assert (inside == inside[0]).all()
    np.testing.assert_array_equal(all_weights(strategy), before)


@pytest.mark.ranks(1, 3)
def test_a_matrix_missing_on_one_rank_is_refused_by_all(world: World, tmp_path: Path) -> None:
    """A file that only rank 0 sees: every rank raises the same error, none waits for another."""
    path = tmp_path / f"A-{world.rank}.txt"
    if world.rank == 0:
        np.savetxt(path, np.full((world.size, world.size), 1 / world.size))
    case = From(STRATEGIES).choose(
        {"name": "dpsgd", "topology": {"name": "from_file", "path": str(path)}}
    )
    model = network()
    if world.size == 1:
        case.build(STRATEGIES, model, GradientStep(sgd(model)), world, SEED)
        return
    with pytest.raises(AgreedError, match=r"A-1\.txt: no such file"):
        case.build(STRATEGIES, model, GradientStep(sgd(model)), world, SEED)


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize("name", STRATEGIES)
def test_consensus_averages_batch_norm_statistics(name: str, world: World) -> None:
    """Inside, the statistics are the learners' mean; outside, each learner's own again."""
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4)).double()
    strategy = learner(model, CASES[name][0], world, {})
    model(torch.from_numpy(samples(8, seed=world.rank)[0]))
    own = model[1].running_mean.clone()
    mean = np.mean(world.comm.allgather(own.numpy()), axis=0)
    with strategy.consensus():
        np.testing.assert_allclose(model[1].running_mean, mean, rtol=1e-14)
    assert torch.equal(model[1].running_mean, own)


@pytest.mark.ranks(1, 2, 3, 4)
def test_bytes_sent_are_those_handed_to_mpi(world: World, tmp_path: Path) -> None:
    """A learner sends d * 8 bytes to each learner whose row of A names it."""
    ring = build({"name": "dpsgd", "topology": {"name": "ring"}}, world, {}, tmp_path)
    run(ring)
    others = np.count_nonzero(ring.topology(0)[:, world.rank]) - 1
    d = len(vector_of(ring.model))
    if others == world.size - 1 > 1:  # three in a ring average with all: an allreduce
        expected = round(2 * (world.size - 1) / world.size * d * 8)
    else:
        expected = others * d * 8
    assert ring.traffic.bytes_sent == STEPS * expected
