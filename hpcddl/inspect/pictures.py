"""How each kind of shard set is drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcddl.data.split_files import SplitFiles
from hpcddl.inspect.class_plot import draw_classes, draw_zipf
from hpcddl.inspect.names import class_names, read_lines
from hpcddl.inspect.samples import spread, stored

Figure = Any  # matplotlib's

_IMAGE_ROWS, _IMAGE_COLUMNS = 4, 10
_VECTORS = 60
_PASSAGE_TOKENS = 260


def draw_frames(figure: Figure, files: SplitFiles, sample: int) -> None:
    """One window: its features over time, the classes of its frames below."""
    at = np.array([sample])
    features = stored(files, "features", at)[0].astype(np.float32)
    labels = stored(files, "labels", at)[0]
    start = int(stored(files, "start", at)[0])
    frames, dimensions = features.shape
    image, strip, classes = figure.subplots(3, 1, height_ratios=(4, 0.5, 3))
    strip.sharex(image)
    span = (start - 0.5, start + frames - 0.5)
    limit = float(np.quantile(np.abs(features), 0.995)) or 1.0
    shown = image.imshow(
        features.T,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        extent=(*span, -0.5, dimensions - 0.5),
    )
    figure.colorbar(shown, ax=image, label="stored value", pad=0.01)
    image.set_ylabel("feature dimension")
    image.set_title(
        f"{files.split} sample {sample}: {_source(files, at)}, "
        f"frames {start} .. {start + frames - 1}",
        parse_math=False,
    )
    image.tick_params(labelbottom=False)
    _draw_labels(strip, labels, start, class_names(files.directory, files.manifest))
    strip.set_xlim(*span)
    strip.locator_params(axis="x", integer=True)
    strip.set_xlabel("frame of the utterance")
    draw_classes(classes, files.directory, files.manifest)


def _source(files: SplitFiles, at: NDArray[np.int64]) -> str:
    entry = files.manifest.splits[files.split].sources
    number = int(stored(files, "utterance", at)[0])
    if entry is None:
        return f"utterance {number}"
    utterance, speaker = read_lines(files.directory, entry)[number].split()
    return f"utterance {utterance} of speaker {speaker}"


def _draw_labels(axis: Any, labels: NDArray, start: int, names: list[str]) -> None:
    """A box for each run of frames of one class, with its name where it fits."""
    cuts = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    for number, (begin, end) in enumerate(pairwise(cuts)):
        axis.axvspan(
            start + begin - 0.5,
            start + end - 0.5,
            facecolor=("#56B4E9", "#E69F00")[number % 2],
            edgecolor="white",
        )
        name = names[int(labels[begin])]
        room = 90 * (end - begin) / len(labels)  # in characters
        if room > 2:
            axis.text(
                start + (begin + end - 1) / 2,
                0.5,
                name,
                ha="center",
                va="center",
                fontsize=9,
                rotation=0 if len(name) < room else 90,
                parse_math=False,
            )
    axis.set_yticks([])
    axis.set_ylabel("class", rotation=0, ha="right", va="center")


def draw_images(figure: Figure, files: SplitFiles, sample: int) -> None:
    """A grid of samples with the names of their classes."""
    grid, below = figure.subfigures(2, 1, height_ratios=(2.2, 1))
    names = class_names(files.directory, files.manifest)
    indices = spread(sample, _IMAGE_ROWS * _IMAGE_COLUMNS, int(files.ends[-1]))
    images = stored(files, "features", indices)
    labels = stored(files, "labels", indices)
    axes = grid.subplots(_IMAGE_ROWS, _IMAGE_COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, pixels, label in zip(axes.flat, images, labels.tolist(), strict=False):
        picture = pixels.transpose(1, 2, 0)
        axis.imshow(picture.squeeze(), cmap="gray", interpolation="nearest", vmin=0, vmax=255)
        axis.set_title(textwrap.shorten(names[label], 14), fontsize=8, pad=2, parse_math=False)
    shape = " x ".join(map(str, files.manifest.fields["features"].shape))
    grid.suptitle(
        f"{files.split}: {len(indices)} of {int(files.ends[-1]):,} images of {shape}, "
        f"from sample {sample} on at equal distances"
    )
    draw_classes(below.subplots(), files.directory, files.manifest)


def draw_vectors(figure: Figure, files: SplitFiles, sample: int) -> None:
    """Rows of features, ordered by class."""
    strip, classes = figure.subplots(2, 1, height_ratios=(2, 1))
    indices = spread(sample, _VECTORS, int(files.ends[-1]))
    labels = stored(files, "labels", indices)
    order = np.argsort(labels, kind="stable")
    rows = stored(files, "features", indices).reshape(len(indices), -1).astype(np.float32)[order]
    limit = float(np.quantile(np.abs(rows), 0.995)) or float(np.abs(rows).max()) or 1.0
    signed = rows.min() < 0
    shown = strip.imshow(
        rows,
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r" if signed else "Greys",
        vmin=-limit if signed else 0,
        vmax=limit,
    )
    figure.colorbar(shown, ax=strip, label="stored value", pad=0.01)
    names = class_names(files.directory, files.manifest)
    values, firsts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    for first in firsts[1:]:
        strip.axhline(first - 0.5, color="#D55E00", linewidth=1)
    strip.set_yticks(firsts + (counts - 1) / 2, [names[value] for value in values.tolist()])
    for label in strip.get_yticklabels():
        label.set_parse_math(False)
    strip.set_ylabel("class")
    strip.set_xlabel("feature")
    strip.set_title(
        f"{files.split}: {len(indices)} of {int(files.ends[-1]):,} samples, "
        f"from sample {sample} on at equal distances, by class"
    )
    draw_classes(classes, files.directory, files.manifest)


def draw_text(figure: Figure, files: SplitFiles, sample: int) -> None:
    """A passage in words, and the frequencies of all words."""
    passage, words = figure.subplots(2, 1, height_ratios=(1, 1.8))
    indices = np.arange(sample, min(sample + _PASSAGE_TOKENS, int(files.ends[-1])))
    names = class_names(files.directory, files.manifest)
    text = " ".join(names[token] for token in stored(files, "tokens", indices).tolist())
    passage.set_axis_off()
    passage.set_title(f"{files.split}: tokens {indices[0]:,} .. {indices[-1]:,}")
    passage.text(
        0,
        1,
        "\n".join(textwrap.wrap(text, 115)),
        va="top",
        family="monospace",
        fontsize=9,
        parse_math=False,
    )
    draw_zipf(words, names, files.manifest)


PICTURES: dict[str, Callable[[Figure, SplitFiles, int], None]] = {
    "frames": draw_frames,
    "images": draw_images,
    "vectors": draw_vectors,
    "text": draw_text,
}
