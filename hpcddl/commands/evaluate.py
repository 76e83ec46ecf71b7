"""`hpcddl evaluate`: held-out loss and accuracy of a run's trained network."""

import argparse
import json
from typing import Any

from hpcddl.cluster.world import World
from hpcddl.common.finite import finite
from hpcddl.data.prefetch import Prefetcher
from hpcddl.run.trained import Trained, add_run_arguments, trained_of
from hpcddl.training.evaluate import evaluate, log_prior


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl evaluate`."""
    parser.description = (
        "Compute the held-out loss and accuracy of a run's consensus (the mean of its learners' "
        "weights), on any number of ranks."
    )
    parser.epilog = "example: mpirun -np 4 hpcddl evaluate runs/a --json"
    add_run_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Rank 0 prints the evaluation."""
    world = World.create(vars(arguments))
    with world.failing_together():
        trained = trained_of(arguments, arguments.run, world)
        facts = {"run": str(arguments.run), **evaluation(trained)}
    if world.rank == 0:
        print(json.dumps(facts) if arguments.json else _text(facts))
    return 0


def evaluation(trained: Trained) -> dict[str, Any]:
    """Repeats the run's own evaluation at this checkpoint, and adds to it. Collective.

    JSON has no NaN and no infinity: null stands for both.
    """
    loader = Prefetcher(trained.heldout, trained.world.device, trained.config.prefetch)
    prior = log_prior(trained.train_set.class_counts)
    with trained.statistics():
        found = evaluate(
            *(trained.network, loader, trained.heldout, trained.micro_batch, prior),
            trained.world,
            top5=True,
        )
    at = trained.checkpoint.position
    of_words = {}
    if found.perplexity is not None:
        of_words["heldout_perplexity"] = finite(found.perplexity)
    return {
        "data": trained.config.data.options["path"],
        "epoch": at.epoch,
        "updates": at.steps,
        "heldout_loss": finite(found.loss),
        **of_words,
        "heldout_accuracy": found.accuracy,
        "heldout_top5_accuracy": found.top5_accuracy,
        "prior_loss": found.prior_loss,
        "prior_accuracy": found.prior_accuracy,
        "heldout_predictions": found.predictions,
        "classes": trained.heldout.classes,
    }


def _text(facts: dict[str, Any]) -> str:
    loss, top5 = facts["heldout_loss"], facts["heldout_top5_accuracy"]
    perplexity = facts.get("heldout_perplexity")
    beside = "" if perplexity is None else f", perplexity {perplexity:.2f}"
    among = "" if top5 is None else f", {100 * top5:.2f} % among the best five"
    return (
        f"{facts['run']} after {facts['updates']} updates, on {facts['data']}: "
        f"held-out loss {'not finite' if loss is None else f'{loss:.4f}'} "
        f"(class prior {facts['prior_loss']:.4f}){beside}, "
        f"accuracy {100 * facts['heldout_accuracy']:.2f} %{among} "
        f"(class prior {100 * facts['prior_accuracy']:.2f} %), "
        f"{facts['heldout_predictions']} predictions of {facts['classes']} classes"
    )
