"""`hpcddl models`: lists the networks with their sizes, or the layers of one."""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hpcddl.common.errors import UserError
from hpcddl.common.options import nearest, options_of
from hpcddl.common.table import aligned
from hpcddl.models import MODELS
from hpcddl.models.reference import REFERENCES, Reference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl models`."""
    parser.description = (
        "List the networks with their trainable parameters and their size as float32, beside the "
        "size in paper A table 1; or show the options and layers of one."
    )
    parser.epilog = "example: hpcddl models resnet18"
    parser.add_argument("name", nargs="?", help="the network to show in full")


def run(arguments: argparse.Namespace) -> int:
    """Prints one line per network, or one network in full.

    Raises:
        UserError: no such network.
    """
    name = arguments.name
    if name is not None and name not in MODELS:
        raise UserError(
            f"model {name!r}: must be one of {', '.join(MODELS)}; {nearest(name, MODELS)}"
        )
    print("\n".join(_listed() if name is None else _in_full(name)))
    return 0


def trainable(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _build(name: str) -> nn.Module:
    """The network for its reference data, without memory for its weights."""
    with torch.device("meta"):
        return MODELS[name](REFERENCES[name].shape, REFERENCES[name].classes)


def _listed() -> list[str]:
    rows = [("model", "input", "classes", "parameters", "MiB", "paper A")]
    for name in MODELS:
        reference = REFERENCES[name]
        count = trainable(_build(name))
        paper = "" if reference.paper_mib is None else f"{reference.paper_mib:.2f}"
        numbers = (f"{reference.classes:,}", f"{count:,}", _mib(count), paper)
        rows.append((name, _product(reference.shape), *numbers))
    return aligned(rows, left=2)


def _in_full(name: str) -> list[str]:
    reference = REFERENCES[name]
    model = _build(name)
    count = trainable(model)
    paper = "" if reference.paper_mib is None else f", {reference.paper_mib:.2f} in paper A table 1"
    options = [
        (f"  model.{key}", "required" if field.is_required() else str(field.default))
        for key, field in options_of(MODELS[name]).model_fields.items()
    ]
    layers = [("layer", "kind", "output", "parameters"), *_layers(model, reference)]
    return [
        f"{name}: {count:,} trainable parameters, {_mib(count)} MiB as float32{paper}",
        f"for samples of {_product(reference.shape)} and {reference.classes:,} classes",
        *(["options", *aligned(options, left=2)] if options else ["options: none"]),
        *aligned(layers, left=3),
    ]


def _layers(model: nn.Module, reference: Reference) -> list[tuple[str, str, str, str]]:
    """Each layer's path, kind, output for one sample, and parameters."""
    outputs: dict[nn.Module, tuple[int, ...]] = {}
    counted: set[nn.Parameter] = set()

    def note(layer: nn.Module, _: object, out: Tensor | tuple[Tensor, ...]) -> None:
        outputs[layer] = (out[0] if isinstance(out, tuple) else out).shape[1:]

    layers = list(_parts(model))
    for _, layer in layers:
        layer.register_forward_hook(note)
    model.eval()(torch.zeros(1, *reference.shape, dtype=reference.dtype, device="meta"))
    rows = []
    for path, layer in layers:
        new = set(layer.parameters()) - counted  # tied weights count where they come first
        counted |= new
        count = sum(p.numel() for p in new)
        rows.append((path, type(layer).__name__, _product(outputs[layer]), f"{count:,}"))
    return rows


def _parts(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The children of a module; a plain sequence is replaced by its members."""
    for name, child in model.named_children():
        if type(child) is nn.Sequential:
            yield from _parts(child, f"{path}{name}.")
        else:
            yield f"{path}{name}", child


def _mib(parameters: int) -> str:
    return f"{4 * parameters / 2**20:.2f}"


def _product(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
