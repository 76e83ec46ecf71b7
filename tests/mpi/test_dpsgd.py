"""DPSGD's limits: super-learners, and what is refused, on however many ranks were started."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from tests.mpi.test_strategies import OPTIMIZERS, all_weights, build, run

NESTEROV = OPTIMIZERS["nesterov"]


def ends_at(case: dict[str, Any], world: World, folder: Path) -> Any:
    strategy = build(case, world, NESTEROV, folder)
    run(strategy)
    return all_weights(strategy)


@pytest.mark.ranks(2, 3, 4)
@pytest.mark.parametrize("topology", ["ring", "random_pair", "full"])
def test_one_learner_per_node_is_dpsgd(topology: str, world: World, tmp_path: Path) -> None:
    """Super-learners of one learner are learners, bit for bit."""
    case = {"name": "dpsgd", "topology": {"name": topology}}
    np.testing.assert_array_equal(
        ends_at({**case, "super_learners": 1}, world, tmp_path), ends_at(case, world, tmp_path)
    )


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("who", ["node", "all"])
def test_one_node_is_ssgd(who: str, world: World, tmp_path: Path) -> None:
    """One super-learner has no neighbour: its learners average gradients, and that is all."""
    size = {"node": "node", "all": world.size}[who]
    one = ends_at({"name": "dpsgd", "super_learners": size}, world, tmp_path)
    np.testing.assert_array_equal(one, ends_at({"name": "ssgd"}, world, tmp_path))


@pytest.mark.ranks(4)
def test_learners_of_a_node_stay_equal(world: World, tmp_path: Path) -> None:
    """Bit for bit, also where the weights travel as 16-bit numbers and arrive late."""
    case = {"name": "dpsgd", "topology": {"name": "ring"}, "super_learners": 2, "delayed": True}
    weights = ends_at({**case, "exchange_dtype": "bfloat16"}, world, tmp_path)
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights[2], weights[3])
    assert abs(weights[0] - weights[2]).max() > 1e-6


@pytest.mark.ranks(3, 4)
def test_unequal_nodes_are_refused_by_all(world: World, tmp_path: Path) -> None:
    """Their average would not be the learners'; every rank says so, none waits."""
    size = world.size - 1
    case = {"name": "dpsgd", "super_learners": size}
    with pytest.raises(UserError, match=rf"some of 1 and some of {size}"):
        build(case, world, {}, tmp_path)


@pytest.mark.ranks(2, 3, 4)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounded_weights_keep_the_consensus(dtype: str, world: World, tmp_path: Path) -> None:
    """Both sides of a difference are rounded alike: what one gains another loses, to rounding."""
    case = {"name": "dpsgd", "topology": {"name": "ring"}, "exchange_dtype": dtype}
    strategy = build(case, world, {}, tmp_path)
    exact = build({"name": "dpsgd", "topology": {"name": "ring"}}, world, {}, tmp_path)
    run(strategy, last=1)
    run(exact, last=1)
    one, two = all_weights(strategy), all_weights(exact)
    np.testing.assert_allclose(one.mean(0), two.mean(0), rtol=0, atol=1e-15)
    # Half a unit in the last place of weights below 2, of two numbers, in each of the steps.
    assert abs(one - two).max() <= 2.0 * (2**-8 if dtype == "bfloat16" else 2**-11)


@pytest.mark.ranks(4)
def test_bytes_of_a_super_learner(world: World, tmp_path: Path) -> None:
    """Gradients within the node; of the weights a share between nodes, and the rest within."""
    case = {"name": "dpsgd", "topology": {"name": "ring"}, "super_learners": 2}
    strategy = build(case, world, {}, tmp_path)
    run(strategy, last=1)
    share = 8 * (19 if world.rank % 2 == 0 else 20)
    assert strategy.traffic.bytes_sent == 8 * 39 + share + share
