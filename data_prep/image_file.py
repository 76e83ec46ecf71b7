"""One image file as an array: shorter side resized, centre cropped.

As ImageNet is usually prepared (torchvision's Resize and CenterCrop): antialiased bilinear, sizes
rounded in the same way, EXIF orientation ignored. The module is light to import, for workers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpcddl.common.errors import UserError

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".ppm")
_FORMATS = ("JPEG", "PNG", "BMP", "PPM")  # by content: others have decoders that run programs
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")  # what becomes RGB of 8 bits
_MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26


@dataclass(frozen=True)
class Decode:
    """Reads files as (n, 3, size, size) uint8; can be passed to worker processes."""

    size: int

    def __call__(self, paths: list[Path]) -> NDArray[np.uint8]:
        """Raises UserError naming the first file that is broken."""
        images = np.empty((len(paths), 3, self.size, self.size), np.uint8)
        for image, path in zip(images, paths, strict=True):
            image[:] = read_image(path, self.size)
        return images

    def faults(self, paths: list[Path]) -> list[str | None]:
        """Says what is wrong with each file, or None."""
        found: list[str | None] = []
        for path in paths:
            try:
                read_image(path, self.size)
                found.append(None)
            except UserError as error:
                found.append(str(error))
        return found


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """(3, size, size) of an image file.

    Raises UserError for one that is broken, or too large once decoded or resized.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                if image.mode not in _MODES:
                    raise ValueError(f"mode {image.mode}: must be one of {', '.join(_MODES)}")
                width, height = _resized(image.width, image.height, size)
                pixels = image.convert("RGB")
    except MemoryError:
        raise
    # Pillow's decoders raise nearly anything for broken data.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be decoded ({reason})") from None
    pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    square = pixels.crop((left, top, left + size, top + size))
    return np.asarray(square).transpose(2, 0, 1)


def _resized(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height when the shorter is `size`.

    Raises:
        ValueError: that is too large.
    """
    short = min(width, height)
    wide, high = size * width // short, size * height // short
    if wide * high > _MAX_PIXELS:
        raise ValueError(f"{width} x {height} resized to {wide} x {high}")
    return wide, high
