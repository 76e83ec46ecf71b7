"""`hpcddl bench model`: what a sample costs to compute and a model to send, and small batches.

Floating point operations per sample (of products and convolutions, 2 per multiplication with its
addition), parameters, and their scaling ratio, forward FLOPs per parameter: the lower, the more
local steps save (paper B table 6). With --batches also the seconds of forward and backward over as
many samples by mini-batch size, on a GPU if there is one (table 7).

example: hpcddl bench model resnet20 --batches 32,64,128,256
"""

import argparse
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from hpcddl.bench import benchmark as bench
from hpcddl.commands.models import trainable
from hpcddl.common.bounds import at_least
from hpcddl.common.errors import UserError
from hpcddl.common.options import nearest
from hpcddl.models import MODELS
from hpcddl.models.reference import REFERENCES
from hpcddl.training.accumulate import backward
from hpcddl.training.evaluate import classification_loss

PAPER_B = ("resnet20", "densenet40_12", "wide_resnet28_10", "resnet50", "lstm_lm", "bilstm")
SIZES = tuple(2**k for k in range(5, 13))
_COUNTED = 2  # samples: with one, batch norm may have a single value per channel
COLUMNS = (
    bench.Column("parameters", "parameters", ",.0f"),
    bench.Column("MiB", "mib", ".2f"),
    bench.Column("MFLOPs forward", "forward_flops", ",.2f", 1e6),
    bench.Column("and backward", "flops", ",.2f", 1e6),
    bench.Column("forward/parameter", "forward_flops_per_parameter", ",.1f"),
)
BATCH_COLUMNS = (
    bench.Column("seconds", "seconds", ".3f"),
    bench.Column("ratio to the largest", "ratio", ".2f"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench model`."""
    add, one = bench.describe(parser, __doc__), at_least(1)
    add("models", nargs="*", metavar="MODEL", help=f"networks (default: {' '.join(PAPER_B)})")
    add(
        "--batches",
        type=lambda text: sorted(set(map(one, text.split(",")))),
        nargs="?",
        const=SIZES,
        metavar="B,...",
        help="mini-batch sizes to time; without numbers 32 to 4096 by powers of two",
    )
    add("--samples", type=one, default=4096, help="samples that are timed together")
    add("--repeats", type=one, default=3, help="turns of every size, of which the best counts")


def measure(
    *, models: list[str], batches: Sequence[int] | None, samples: int, repeats: int
) -> bench.Result:
    """Counts every network's operations, and times its batches if there are any.

    Raises:
        UserError: no such network; a batch that does not divide the samples.
    """
    for name in models:
        if name not in MODELS:
            raise UserError(f"model {name!r}: {nearest(name, MODELS)}")
    for batch in batches or ():
        if samples % batch:
            raise UserError(f"--batches: {batch}: must divide --samples, {samples}")
    cuda = torch.cuda.is_available()
    here = bench.machine()
    result = {
        "machine": here["machine"],
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {here['cores']} cores",
        "models": {name: costs(name) for name in models or PAPER_B},
    }
    if batches:
        device = torch.device("cuda" if cuda else "cpu")
        result["samples"] = samples
        for name, model in result["models"].items():
            model["seconds"] = seconds_by_batch(name, batches, samples, repeats, device)
    return result


def costs(name: str) -> dict[str, float]:
    """Counts what one sample of the network's reference data costs; paper B's scaling ratio."""
    reference = REFERENCES[name]
    with torch.device("meta"):  # counts need shapes alone
        model = MODELS[name](reference.shape, reference.classes)
        samples = torch.zeros(_COUNTED, *reference.shape, dtype=reference.dtype)
    parameters = trainable(model)
    with _counter() as forward:
        scores = model(samples)
    labels = torch.zeros(scores.shape[:-1], dtype=torch.int64, device="meta")
    loss = classification_loss(scores, labels)
    with _counter() as backwards:
        loss.backward()
    forward_flops = forward.get_total_flops() / _COUNTED
    return {
        "parameters": parameters,
        "mib": 4 * parameters / 2**20,
        "forward_flops": forward_flops,
        "flops": forward_flops + backwards.get_total_flops() / _COUNTED,
        "forward_flops_per_parameter": forward_flops / parameters,
    }


def seconds_by_batch(
    name: str, batches: Sequence[int], samples: int, repeats: int, device: torch.device
) -> dict[str, float]:
    """Takes the best seconds of forward and backward over all samples by mini-batch size."""
    reference = REFERENCES[name]
    torch.manual_seed(0)
    model = MODELS[name](reference.shape, reference.classes).to(device)
    shape = (max(batches), *reference.shape)
    if reference.dtype.is_floating_point:
        features = torch.randn(shape, device=device)
    else:
        features = torch.randint(reference.classes, shape, device=device)
    with torch.no_grad():
        predictions = model(features[:2]).shape[1:-1]
    labels = torch.zeros(max(batches), *predictions, dtype=torch.int64, device=device)

    def turn(batch: int) -> float:
        def evaluate() -> None:
            for _ in range(samples // batch):
                model.zero_grad()
                backward(model, features[:batch], labels[:batch], 1)
            if device.type == "cuda":
                torch.cuda.synchronize()

        return bench.seconds(evaluate)

    return bench.best(bench.in_turns({str(batch): batch for batch in batches}, repeats, turn))


def _convolution_backward(
    grad: Sequence[int], x: Sequence[int], weight: Sequence[int], *rest: Any, out_shape: Any
) -> int:
    """Counts FLOPs of a convolution's gradients: each takes as many as the convolution itself.

    torch's own count takes grouped convolutions for full ones.
    """
    mask = rest[-1]
    return 2 * grad[0] * prod(grad[2:]) * prod(weight) * sum(mask[:2])


def _counter() -> FlopCounterMode:
    own = {torch.ops.aten.convolution_backward: _convolution_backward}
    return FlopCounterMode(display=False, custom_mapping=own)


def as_text(result: bench.Result) -> str:
    """Lays out a row per network, and below one per batch size of each."""
    lines = bench.table(result["models"], COLUMNS, "model")
    for name, model in result["models"].items():
        if "seconds" in model:
            seconds = model["seconds"]
            *_, largest = seconds.values()
            rows = {b: {"seconds": s, "ratio": s / largest} for b, s in seconds.items()}
            lines += [
                "",
                f"{name}: forward and backward over {result['samples']:,} samples on "
                f"{result['machine']} ({result['device']})",
                *bench.table(rows, BATCH_COLUMNS, "batch"),
            ]
    return "\n".join(lines)


run = bench.command(measure, as_text)
