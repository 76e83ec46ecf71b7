"""`hpcddl bench model`: what a sample costs to compute and a model to send, and small batches."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from hpcddl.bench.timing import interleaved
from hpcddl.commands.models import trainable
from hpcddl.common.errors import UserError
from hpcddl.common.options import nearest
from hpcddl.common.table import aligned
from hpcddl.models import MODELS
from hpcddl.models.reference import REFERENCES
from hpcddl.training.accumulate import backward
from hpcddl.training.evaluate import classification_loss

PAPER_B = ("resnet20", "densenet40_12", "wide_resnet28_10", "resnet50", "lstm_lm", "bilstm")
SIZES = tuple(2**k for k in range(5, 13))
_COUNTED = 2  # samples: with one, batch norm may have a single value per channel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench model`."""
    parser.description = (
        "Floating point operations per sample (of products and convolutions, 2 per multiplication "
        "with its addition), parameters, and their scaling ratio, forward FLOPs per parameter: "
        "the lower, the more local steps save (paper B table 6). With --batches also the seconds "
        "of forward and backward over as many samples by mini-batch size, on a GPU if there is one "
        "(table 7)."
    )
    parser.epilog = "example: hpcddl bench model resnet20 --batches 32,64,128,256"
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help=f"networks (default: {' '.join(PAPER_B)})")
    add(
        "--batches",
        type=_sizes,
        nargs="?",
        const=SIZES,
        metavar="B,...",
        help="mini-batch sizes to time; without numbers 32 to 4096 by powers of two",
    )
    add("--samples", type=int, default=4096, help="samples that are timed together")
    add("--repeats", type=int, default=3, help="turns of every size, of which the best counts")
    add("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints.

    Raises:
        UserError: no such network; a count below 1; a batch that does not divide the samples.
    """
    a = arguments
    for name in a.models:
        if name not in MODELS:
            raise UserError(f"model {name!r}: {nearest(name, MODELS)}")
    for option in ("samples", "repeats"):
        if getattr(a, option) < 1:
            raise UserError(f"--{option}: {getattr(a, option)}, allowed: at least 1")
    batches = a.batches or []
    for batch in batches:
        if batch < 1 or a.samples % batch:
            raise UserError(f"--batches: {batch}, allowed: what divides --samples {a.samples}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cores = len(os.sched_getaffinity(0))
    cuda = device.type == "cuda"
    result: dict[str, Any] = {
        "machine": platform.node(),
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {cores} cores",
        "models": {name: costs(name) for name in a.models or PAPER_B},
    }
    if batches:
        result["samples"] = a.samples
        for name, model in result["models"].items():
            model["seconds"] = seconds_by_batch(name, batches, a.samples, a.repeats, device)
    print(json.dumps(result) if a.json else _text(result))
    return 0


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
) -> dict[int, float]:
    """Best seconds of forward and backward over `samples` samples in mini-batches of each size."""
    reference = REFERENCES[name]
    torch.manual_seed(0)
    model = MODELS[name](reference.shape, reference.classes).to(device)
    size = max(batches)
    features: torch.Tensor
    if reference.dtype.is_floating_point:
        features = torch.randn(size, *reference.shape, device=device)
    else:
        features = torch.randint(reference.classes, (size, *reference.shape), device=device)
    with torch.no_grad():
        labels = torch.zeros(model(features[:2]).shape[:-1], dtype=torch.int64, device=device)
    labels = labels[:1].expand(size, *labels.shape[1:]).contiguous()

    def over(batch: int) -> Callable[[int], None]:
        def evaluate(_: int) -> None:
            for _ in range(samples // batch):
                model.zero_grad()
                backward(model, features[:batch], labels[:batch], 1)
            if device.type == "cuda":
                torch.cuda.synchronize()

        return evaluate

    found = interleaved({str(batch): over(batch) for batch in batches}, repeats)
    return {batch: found[str(batch)] for batch in batches}


def _convolution_backward(
    grad: Sequence[int], x: Sequence[int], weight: Sequence[int], *rest: Any, out_shape: Any
) -> int:
    """FLOPs of a convolution's gradients: each takes as many as the convolution itself.

    torch's own count takes grouped convolutions for full ones.
    """
    mask = rest[-1]
    return 2 * grad[0] * prod(grad[2:]) * prod(weight) * sum(mask[:2])


def _counter() -> FlopCounterMode:
    ours = {torch.ops.aten.convolution_backward: _convolution_backward}
    return FlopCounterMode(display=False, custom_mapping=ours)


def _sizes(text: str) -> Sequence[int]:
    try:
        return sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise UserError(f"--batches {text!r}: must be whole numbers, as in 32,64,128") from None


def _text(result: dict[str, Any]) -> str:
    rows = [("model", "parameters", "MiB", "MFLOPs forward", "and backward", "forward/parameter")]
    for name, model in result["models"].items():
        rows.append(
            (
                name,
                f"{model['parameters']:,}",
                f"{model['mib']:.2f}",
                f"{model['forward_flops'] / 1e6:,.2f}",
                f"{model['flops'] / 1e6:,.2f}",
                f"{model['forward_flops_per_parameter']:,.1f}",
            )
        )
    lines = aligned(rows, left=1)
    for name, model in result["models"].items():
        if "seconds" in model:
            seconds = model["seconds"]
            largest = seconds[max(seconds)]
            lines += [
                "",
                f"{name}: forward and backward over {result['samples']:,} samples on "
                f"{result['machine']} ({result['device']})",
                *aligned(
                    [
                        ("batch", "seconds", "ratio to the largest"),
                        *((str(b), f"{s:.3f}", f"{s / largest:.2f}") for b, s in seconds.items()),
                    ],
                    left=0,
                ),
            ]
    return "\n".join(lines)
