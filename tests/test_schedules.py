"""Learning-rate schedules against the papers' own words."""

from typing import Any

import pytest

from hpcddl.common.errors import UserError
from hpcddl.optimizers.schedules import SCHEDULES, constant, cosine, speech, step
from hpcddl.run.config import load_config

# Every entry of the table, warmed up from 0.1 to 0.8 over 5 of 20 epochs.
WARMED_UP: dict[str, dict[str, Any]] = {
    "constant": {},
    "speech": {"decay_epochs": 0},
    "step": {"fractions": [0.5, 0.75]},
    "cosine": {},
}


def test_speech_schedule() -> None:
    """Paper A sec. 4.2: batch 2048 warms up linearly to 0.8 over 10 epochs, then anneals."""
    rate = speech(2048, 16)
    assert rate(0) == pytest.approx(0.1)
    assert rate(5) == pytest.approx(0.45)
    assert rate(9.999) == pytest.approx(0.8, rel=1e-3)
    assert rate(10) == pytest.approx(0.8 / 2**0.5)
    assert rate(10.9) == rate(10)
    assert rate(13) == pytest.approx(0.8 / 4)
    assert rate(19.9) == rate(50) == pytest.approx(0.8 / 32)


def test_step_schedule_in_epochs() -> None:
    """Paper A sec. 4.1: 0.1 at batch 1024, x 0.1 after epochs 160 and 240, scaled linearly."""
    rate = step(8192, 320, rate=0.1, base_batch=1024, milestones=[160, 240], warmup_epochs=5)
    assert rate(0) == pytest.approx(0.1)
    assert rate(2.5) == pytest.approx(0.45)
    assert [rate(e) for e in (5, 159.9, 160, 239.9, 240, 319)] == pytest.approx(
        [0.8, 0.8, 0.08, 0.08, 0.008, 0.008]
    )


def test_step_schedule_in_fractions_of_all_samples() -> None:
    """Paper B app. A.4: x 0.1 at 50 % and 75 % of all samples, which may lie within an epoch."""
    rate = step(2048, 15, rate=0.2, base_batch=128, fractions=[0.5, 0.75], warmup_epochs=5)
    assert [rate(e) for e in (5, 7.49, 7.5, 11.24, 11.25, 14.9)] == pytest.approx(
        [3.2, 3.2, 0.32, 0.32, 0.032, 0.032]
    )
    assert rate.first_decay == 7.5


def test_step_schedule_of_imagenet() -> None:
    """Paper B app. A.4: epochs 30, 60 and 80 of 90."""
    rate = step(8192, 90, rate=0.1, base_batch=256, milestones=[30, 60, 80], warmup_epochs=5)
    assert [rate(e) for e in (29.9, 30, 60, 80)] == pytest.approx([3.2, 0.32, 0.032, 0.0032])


def test_constant_schedule() -> None:
    assert constant(512, 9, rate=0.3)(7) == 0.3
    assert constant(512, 9, rate=0.3, base_batch=256)(7) == pytest.approx(0.6)
    assert constant(512, 9, rate=0.3, base_batch=256, warmup_epochs=2)(1) == pytest.approx(0.45)


def test_cosine_schedule() -> None:
    """Loshchilov & Hutter 2017, eq. 5: half-way down after half of the epochs that are left."""
    rate = cosine(1024, 25, rate=0.1, base_batch=128, warmup_epochs=5)
    assert [rate(e) for e in (0, 2.5, 5, 15, 25)] == pytest.approx([0.1, 0.45, 0.8, 0.4, 0])
    assert rate(5 + 20 / 3) == pytest.approx(0.6)  # cos(pi/3) = 1/2
    rate = cosine(1024, 20, rate=0.5, final=0.2)
    assert [rate(e) for e in (0, 10, 20)] == pytest.approx([0.5, 0.3, 0.1])


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_warm_up_goes_from_the_base_rate_to_the_scaled_one(name: str) -> None:
    """Linear per iteration, and without a jump at its end."""
    options = {"rate": 0.1, "base_batch": 256, "warmup_epochs": 5, **WARMED_UP[name]}
    rate = SCHEDULES[name](2048, 20, **options)
    assert [rate(e) for e in (0, 1, 2.5, 5)] == pytest.approx([0.1, 0.24, 0.45, 0.8])
    assert rate(5 - 1e-9) == pytest.approx(rate(5), rel=1e-8)


def test_first_decay() -> None:
    """Where post-local SGD switches (paper B sec. 3): the first fall below the scaled rate."""
    assert constant(1, 9, rate=1).first_decay is None
    assert speech(2048, 16).first_decay == 10
    assert speech(2048, 16, decay_epochs=0).first_decay is None
    assert step(1, 320, rate=1, milestones=[240, 160]).first_decay == 160
    assert step(1, 300, rate=1, fractions=[0.5, 0.75]).first_decay == 150
    assert cosine(1, 90, rate=1, warmup_epochs=5).first_decay == 5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: step(1, 9, rate=1), "give exactly one"),
        (lambda: step(1, 9, rate=1, milestones=[3], fractions=[0.5]), "give exactly one"),
        (
            lambda: step(1, 8, rate=1, fractions=[0.5], warmup_epochs=5),
            "schedule.warmup_epochs=5: must not exceed the first decay, at epoch 4",
        ),
        (lambda: cosine(1, 5, rate=1, warmup_epochs=5), "must be below epochs=5"),
    ],
)
def test_options_that_contradict_each_other_are_refused(make: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("{name: step, rate: 1, fractions: [1.5]}", "schedule.fractions.0=1.5"),
        ("{name: step, rate: 1, milestones: []}", "schedule.milestones=[]"),
        ("{name: cosine, rate: 1, final: 1}", "schedule.final=1"),
        ("{name: cosine, rate: -1}", "schedule.rate=-1"),
    ],
)
def test_an_option_out_of_range_is_named(schedule: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config("mini.ssgd", [f"schedule={schedule}"])
    assert words in str(caught.value)
