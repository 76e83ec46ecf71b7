"""Writes summary.json, a run's results. It is written last: where it exists, the run has ended."""

import hashlib
import json
import math
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mpi4py import MPI

import hpcddl
from hpcddl.common.files import write_whole
from hpcddl.common.finite import finite
from hpcddl.run.divergence import not_above_chance, settled_at_chance
from hpcddl.run.metrics import Metrics
from hpcddl.run.state import outcome
from hpcddl.training.evaluate import Evaluation
from hpcddl.training.task import Task


def write_summary(
    folder: Path,
    task: Task,
    metrics: Metrics,
    result: Evaluation,
    *,
    restarts: list[dict[str, int]],
    began: float,
) -> None:
    """Writes RUN/summary.json, and says in a line how the run ended: rank 0 does. Collective.

    Args:
        result: the last evaluation of the consensus.
        restarts: each change of the number of learners: after how many updates, from, to.
        began: when the process started, in seconds since the epoch.
    """
    strategy, classes = task.strategy, task.train_set.classes
    world = strategy.world
    weights = strategy.weights.read(strategy.weights.empty()).cpu().numpy()
    checksums = world.comm.gather(hashlib.sha256(weights.tobytes()).hexdigest())
    totals = metrics.totals()
    nodes = world.comm.allreduce(int(world.node.rank == 0))
    if world.rank != 0:
        return
    since = metrics.diverged_since or settled_at_chance(metrics.heldout, classes)
    last = metrics.heldout[-1]
    losses = [entry.loss for entry in metrics.heldout if entry.loss is not None]
    perplexity = {}
    if result.perplexity is not None:
        perplexity["heldout_perplexity"] = finite(result.perplexity)
    summary = {
        "diverged": since is not None,
        "diverged_since": since,
        "not_above_chance": since is None
        and not_above_chance(metrics.heldout, classes, result.prior_accuracy, result.predictions),
        "heldout_loss": last.loss,
        "heldout_accuracy": last.accuracy,
        **perplexity,
        "best_heldout_loss": min(losses, default=None),
        "prior_loss": result.prior_loss,
        "prior_accuracy": result.prior_accuracy,
        "heldout_predictions": result.predictions,
        "classes": classes,
        "epoch": last.epoch,
        "updates": strategy.step,
        "samples": strategy.step * task.global_batch,
        "learners": world.size,
        "nodes": nodes,
        "restarts": restarts,
        "parameters": strategy.weights.size,
        **totals,
        "wall_seconds": round(time.time() - began, 3),
        "weights_sha256": checksums,
        "command": sys.argv[1:],
        "versions": {
            "hpcddl": hpcddl.__version__,
            **_revision(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "mpi": MPI.Get_library_version().split(",")[0].strip("\0"),
        },
    }
    write_whole(folder / "summary.json", json.dumps(summary, indent=1).encode())
    print(f"{_verdict(summary)}: {folder}/summary.json", flush=True)


def _verdict(summary: dict[str, Any]) -> str:
    """The run's word, and of one that is not simply done the numbers behind it."""
    word = outcome(summary)
    if word == "diverged":
        return f"diverged ({summary['diverged_since']['reason']})"
    if word == "done":
        return word
    classes = summary["classes"]
    return (
        f"{word} (held-out loss {summary['heldout_loss']:.4f}, accuracy "
        f"{100 * summary['heldout_accuracy']:.2f} %; guessing: ln {classes} = "
        f"{math.log(classes):.4f}, {100 / classes:.2f} %)"
    )


def _revision() -> dict[str, str]:
    """The commit of the source that runs, -dirty where it has changed; nothing of a wheel."""
    source = Path(hpcddl.__file__).parents[1]
    if not (source / ".git").exists():
        return {}
    words = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}  # no git on this node
    return {"revision": found.stdout.strip()}
