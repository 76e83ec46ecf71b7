"""Augmentation: every image is a shifted, perhaps mirrored self, drawn from the key alone."""

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from hpcddl.common.errors import UserError
from hpcddl.data.augment import AUGMENTATIONS, pad_crop_flip

SHAPE = (3, 8, 6)


def images(count: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(1, 256, (count, *SHAPE)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_image_is_one_of_its_crops(dtype: torch.dtype) -> None:
    """(2 p + 1)^2 places, mirrored or not, all of which come up."""
    padding, originals = 2, images(200, dtype)
    augmented = pad_crop_flip(SHAPE, padding=padding)(originals, (1, 2, 3))
    assert augmented.dtype == dtype
    assert augmented.shape == originals.shape
    found = set()
    for before, after in zip(pad(originals, (padding,) * 4), augmented, strict=True):
        matches = [
            (y, x, mirrored)
            for y in range(2 * padding + 1)
            for x in range(2 * padding + 1)
            for mirrored in (False, True)
            for crop in [before[:, y : y + SHAPE[1], x : x + SHAPE[2]]]
            if torch.equal(crop.flip(2) if mirrored else crop, after)
        ]
        assert len(matches) == 1
        found.update(matches)
    assert len(found) > 0.95 * 50


def test_the_key_decides() -> None:
    """The same key repeats it, as a resumed run must; learners, steps and epochs differ."""
    augment, originals = pad_crop_flip(SHAPE), images(20)
    one = augment(originals, (0, 1, 2, 3))
    assert torch.equal(one, augment(originals, (0, 1, 2, 3)))
    for key in ((1, 1, 2, 3), (0, 0, 2, 3), (0, 1, 0, 3), (0, 1, 2, 0)):
        assert not torch.equal(one, augment(originals, key))


def test_nothing_to_shift_or_mirror_is_the_image() -> None:
    augment, originals = pad_crop_flip(SHAPE, padding=0, flip=False), images(5)
    assert torch.equal(augment(originals, (0,)), originals)


def test_only_images() -> None:
    for shape in ((21, 40), (300,)):
        with pytest.raises(UserError, match="takes images"):
            pad_crop_flip(shape)
    assert AUGMENTATIONS["none"]((300,)) is None


def test_half_are_mirrored() -> None:
    """Within 4 standard deviations of a half of 4,000."""
    originals = images(4000)
    augmented = pad_crop_flip(SHAPE, padding=0)(originals, (7,))
    mirrored = (augmented != originals).flatten(1).any(1).sum().item()
    assert abs(mirrored - 2000) < 4 * np.sqrt(1000)
