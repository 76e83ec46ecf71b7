"""Finds numbers that are not finite in the learners' states, before they reach a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hpcddl.cluster.world import World


def not_finite(model: nn.Module, state: dict[str, Any], world: World) -> str | None:
    """Names a tensor of some learner that has NaN or infinity; None where none has. Collective.

    Weights, batch norm's statistics, momentum and whatever else of `state` (resume.learner_state)
    is floating-point must be finite. The model's other buffers must not be NaN, but may be infinite
    on purpose, as masks are.
    """
    for learner, name in enumerate(world.comm.allgather(_first(model, state))):
        if name:
            return f"{name} of learner {learner} is not finite"
    return None


def float_tensors(tree: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors in nested dicts and lists, in their order, with dotted names."""
    if isinstance(tree, Tensor):
        if tree.is_floating_point():
            yield name, tree
    elif isinstance(tree, (dict, list, tuple)):
        for key, branch in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from float_tensors(branch, f"{name}.{key}" if name else str(key))


def _first(model: nn.Module, state: dict[str, Any]) -> str | None:
    strategy = state["strategy"]
    if not (strategy.get("pending") or {}).get("mixing"):
        strategy = {**strategy, "pending": None}  # its buffers hold nothing yet
    masks = {f"model.{name}" for name in _masks(model)}
    names, flags = [], []
    for name, tensor in float_tensors({**strategy, "hidden": state["hidden"]}):
        names.append(name)
        flags.append((~tensor.isnan() if name in masks else tensor.isfinite()).all())
    if not flags:
        return None
    good = torch.stack([flag.to(flags[0].device) for flag in flags]).tolist()  # one wait for a GPU
    return next((name for name, one in zip(names, good, strict=True) if not one), None)


def _masks(model: nn.Module) -> set[str]:
    """The names of buffers that are no running statistics."""
    names = (name for name, _ in model.named_buffers())
    return {name for name in names if not name.endswith(("running_mean", "running_var"))}
