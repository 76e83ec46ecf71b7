"""`hpcddl prep digits`: the 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_prep.arguments import add_common, add_heldout_fraction
from data_prep.sample_set import Block, SampleSet, pack
from data_prep.split import heldout_mask
from data_prep.synthetic import synthetic_images
from hpcddl.common.errors import UserError
from hpcddl.data.manifest import labelled

_SHAPE = (1, 8, 8)
_NAMES = [str(digit) for digit in range(10)]
_SCALE = 15  # the 17 grey levels become 0, 15, .. 240: images are of 0 .. 255 in every shard set


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl prep digits`."""
    parser.description = (
        "Pack the 1,797 digits of sklearn.datasets.load_digits (UCI optdigits, test part), their "
        f"grey levels 0 .. 16 multiplied by {_SCALE}. Needs scikit-learn, no download."
    )
    parser.epilog = "example: hpcddl prep digits --out shards/digits --heldout-fraction 0.2"
    add_common(parser, required=False)
    add_heldout_fraction(parser)


def run(arguments: argparse.Namespace) -> int:
    """Packs the set, or with --synthetic a generated one."""
    read = _read if arguments.synthetic is None else _synthetic
    return pack(arguments, "hpcddl prep digits", read)


def _synthetic(arguments: argparse.Namespace) -> SampleSet:
    return synthetic_images(arguments, _SHAPE, _NAMES)


def _read(arguments: argparse.Namespace) -> SampleSet:
    try:
        import sklearn
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            "the digits come with scikit-learn, which is not installed: pip install scikit-learn"
        ) from None
    digits = load_digits()
    features = (digits.images * _SCALE).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int32)
    heldout = heldout_mask(len(labels), arguments.heldout_fraction, arguments.seed)
    masks = {"train": ~heldout, "heldout": heldout}
    return SampleSet(
        kind="images",
        fields=labelled(_SHAPE, "uint8"),
        names=_NAMES,
        samples={split: int(mask.sum()) for split, mask in masks.items()},
        blocks=_blocks(features, labels, masks),
        provenance={
            "data": f"scikit-learn {sklearn.__version__} load_digits",
            "scale": _SCALE,
            "heldout_fraction": arguments.heldout_fraction,
            "seed": arguments.seed,
        },
    )


def _blocks(
    features: NDArray[np.uint8], labels: NDArray[np.int32], masks: dict[str, NDArray[np.bool_]]
) -> Iterator[Block]:
    for split, mask in masks.items():
        yield split, {"features": features[mask], "labels": labels[mask]}
