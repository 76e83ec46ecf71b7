"""`hpcddl export`: a run's trained network as one file that needs no run directory."""

from __future__ import annotations

import argparse
import copy
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hpcddl import __version__
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.files import whole_file
from hpcddl.common.options import entry
from hpcddl.data.network_input import network_input
from hpcddl.models import MODELS
from hpcddl.run.trained import Trained, add_run_arguments, trained_of

TOLERANCE = 1e-5
"""How far a file's scores may be off when it is read back, relative to the network's largest."""


class Format(NamedTuple):
    """How a network becomes bytes, and how they become a function of (B, ...) samples again."""

    suffix: str
    content: Callable[[nn.Module, Trained], bytes]
    read: Callable[[Path], nn.Module]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl export`."""
    parser.description = (
        "Write a run's consensus (the mean of its learners' weights) to one file, read it back, "
        "and compare the outputs for random samples before the file gets its name."
    )
    parser.epilog = "example: hpcddl export runs/a --out a.safetensors"
    add_run_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="safetensors: weights, and what is needed to rebuild the network; torch: a "
        "torch.export program for batches of any size, which runs without hpcddl; default: by "
        "the suffix of FILE, "
        f"{' or '.join(format.suffix for format in FORMATS.values())}",
    )


def run(arguments: argparse.Namespace) -> int:
    """Exports the network; rank 0 writes the file."""
    world = World.create(vars(arguments))
    with world.failing_together():
        chosen = world.together(lambda: _format(arguments))
        trained = trained_of(arguments, arguments.run, world)
        with trained.statistics():
            world.together(
                lambda: export(trained, arguments.out, chosen) if world.rank == 0 else None
            )
    if world.rank == 0:
        size = arguments.out.stat().st_size / 2**20
        at = trained.checkpoint.position
        print(f"{arguments.out}: {chosen}, after {at.steps} updates, {size:.2f} MiB")
    return 0


def export(trained: Trained, path: Path, name: str) -> None:
    """Writes the network to `path` in the format `name`, if the file reproduces its scores.

    Raises:
        UserError: it does not, the format's package is missing, or the file cannot be written.
    """
    model = copy.deepcopy(trained.model).cpu()
    content = FORMATS[name].content(model, trained)
    samples = random_samples(trained, 3)
    try:
        with whole_file(path) as file, torch.no_grad():
            file.write(content)
            file.flush()
            scores, own = FORMATS[name].read(Path(file.name))(samples), model(samples)
            error = float((scores - own).abs().max() / own.abs().max())
            if not error <= TOLERANCE:
                raise UserError(
                    f"--out {path}: not written: read back, its scores differ by {error:.2g} of "
                    f"the largest; must be at most {TOLERANCE:g}"
                )
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written: {error.strerror}") from None


def rebuild(path: Path) -> nn.Module:
    """Rebuilds the network in a safetensors file from its metadata, in evaluation mode.

    Raises:
        UserError: the safetensors package is missing.
    """
    with _safetensors().safe_open(path, "pt") as file:
        head = json.loads(file.metadata()["hpcddl"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    options = head["config"]["model"]
    model = entry(MODELS, options.pop("name"))(tuple(head["sample"]), head["classes"], **options)
    model.to(getattr(torch, head["config"]["dtype"])).load_state_dict(state)
    return model.eval()


def random_samples(trained: Trained, count: int) -> Tensor:
    """(count, ...) random samples of the kind that the network takes: numbers, pixels or tokens."""
    generator = torch.Generator().manual_seed(0)
    samples = trained.heldout.buffers(count)[0]
    if samples.is_floating_point():
        samples.normal_(generator=generator)
    else:
        pixels = samples.dtype == torch.uint8
        samples.random_(256 if pixels else trained.heldout.classes, generator=generator)
    return network_input(samples, getattr(torch, trained.config.dtype))


def _safetensors_content(model: nn.Module, trained: Trained) -> bytes:
    # Cloned: tensors that share their memory are refused.
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    head = {
        "version": __version__,
        "updates": trained.checkpoint.position.steps,
        "sample": trained.heldout.shape,
        "classes": trained.heldout.classes,
        "config": trained.config.plain(),
    }
    # In one entry: several would be written in an order that differs from time to time.
    return bytes(_safetensors().torch.save(tensors, {"hpcddl": json.dumps(head)}))


def _program_content(model: nn.Module, trained: Trained) -> bytes:
    # Two or more: a batch of one would be taken for a constant.
    samples = random_samples(trained, 2)
    with warnings.catch_warnings():
        # An LSTM lists its own weights anew each time they are moved; they are parameters anyway.
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights")
        program = torch.export.export(
            model, (samples,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        )
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


def _read_program(path: Path) -> nn.Module:
    return torch.export.load(io.BytesIO(path.read_bytes())).module()


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise UserError(
            "--format safetensors: the package is missing; pip install safetensors"
        ) from None
    return safetensors


def _format(arguments: argparse.Namespace) -> str:
    """The format's name."""
    suffixes = {format.suffix: name for name, format in FORMATS.items()}
    name = arguments.format or suffixes.get(arguments.out.suffix)
    if name is None:
        raise UserError(
            f"--out {arguments.out}: suffix {arguments.out.suffix!r}; allowed without --format: "
            f"{', '.join(suffixes)}"
        )
    return str(name)


FORMATS = {
    "safetensors": Format(".safetensors", _safetensors_content, rebuild),
    "torch": Format(".pt2", _program_content, _read_program),
}
