"""Learning-rate schedules against the papers' own words."""

import pytest

from hpcddl.schedules import constant, speech, step


def test_speech_schedule() -> None:
    """Paper A sec. 4.2: batch 2048 warms up linearly to 0.8 over 10 epochs, then anneals."""
    rate = speech(2048)
    assert rate(0) == pytest.approx(0.1)
    assert rate(5) == pytest.approx(0.45)
    assert rate(9.999) == pytest.approx(0.8, rel=1e-3)
    assert rate(10) == pytest.approx(0.8 / 2**0.5)
    assert rate(10.9) == rate(10)
    assert rate(13) == pytest.approx(0.8 / 4)
    assert rate(19.9) == rate(50) == pytest.approx(0.8 / 32)


def test_step_schedule() -> None:
    """Paper A sec. 4.1: 0.1 at batch 1024, x 0.1 after epochs 160 and 240, scaled linearly."""
    rate = step(8192, rate=0.1, base_batch=1024, milestones=[160, 240], warmup_epochs=5)
    assert rate(0) == pytest.approx(0.1)
    assert rate(2.5) == pytest.approx(0.45)
    assert [rate(e) for e in (5, 159.9, 160, 239.9, 240, 319)] == pytest.approx(
        [0.8, 0.8, 0.08, 0.08, 0.008, 0.008]
    )


def test_constant_schedule() -> None:
    assert constant(512, rate=0.3)(7) == 0.3
    assert constant(512, rate=0.3, base_batch=256)(7) == pytest.approx(0.6)
