"""Generates speech: words of phones, phones of context-dependent states, Gaussian frames.

What makes recorded speech hard for a frame classifier is kept: classes with a long tail, phones
that move their neighbours' spectra, frames that depend on the frames around them, and speakers who
differ by more than a shift. How hard it is was set by trial, so that a small bi-LSTM gets far below
the class prior on unseen speakers and stays far from zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIMENSION = 13  # cepstral coefficients
PHONES = 31  # phone 0 is silence
STATES = 3  # per phone, left to right
STAY = 0.68  # self-loop probability: 3.1 frames per state
STAY_SILENT = 0.9
_MAX_LEAVES = 16  # per state: about half as many as there are neighbours
MIN_CLASSES = PHONES * STATES
MAX_CLASSES = STATES * (1 + (PHONES - 1) * _MAX_LEAVES)

_WORDS = 150
_WORDS_PER_UTTERANCE = (6, 11)
_PAUSE = 0.12  # probability of a silence between two words
_SPREAD = 0.8  # of phone centres, in units of the frame noise
_STATE_SPREAD = 0.5
_CONTEXT_SPREAD = 0.45
_SPEAKER_SHIFT = 0.8
_SPEAKER_WARP = 0.1
# Decreasing like a real cepstrum's; the first coefficient is the energy.
_CEPSTRAL_SCALE = np.array([9.0, 8.0, 7.5, 7.0, 6.5, 6.0, 5.5, 5.0, 4.5, 4.2, 4.0, 3.8, 3.5])


@dataclass(frozen=True)
class Speech:
    """U utterances end to end: utterance u has frames `bounds[u]` to `bounds[u+1]`.

    `features` (F, 13) float32; `pdf` (F,) and `enters` (F,), true in the first frame of a state;
    `states` (C, 2) phone and state of each pdf; `speaker` (U,).
    """

    features: NDArray[np.float32]
    pdf: NDArray[np.int32]
    enters: NDArray[np.bool_]
    bounds: NDArray[np.int64]
    states: NDArray[np.int32]
    speaker: NDArray[np.int64]


def generate(utterances: int, speakers: int, classes: int, seed: int) -> Speech:
    """Draws a corpus from `seed`; speakers get (nearly) equally many utterances."""
    rng = np.random.default_rng(seed)
    speaker = np.arange(utterances) * speakers // utterances
    weights = (1 / np.arange(1, PHONES) ** 0.7)[rng.permutation(PHONES - 1)]
    phones, first = _phone_strings(rng, utterances, weights / weights.sum())
    states, leaf_of = _tree(rng, classes, np.bincount(phones, minlength=PHONES))

    before, after = np.roll(phones, 1), np.roll(phones, -1)
    pdf_of_state = leaf_of(phones, before, after).ravel()  # three states per phone
    stay = stay_probability(states)
    frames_of_state = rng.geometric(1 - stay[pdf_of_state])
    pdf = np.repeat(pdf_of_state, frames_of_state)
    ends = np.cumsum(frames_of_state)
    enters = np.zeros(len(pdf), bool)
    enters[ends - frames_of_state] = True
    bounds = np.concatenate([[0], ends])[np.append(first, len(phones)) * STATES]

    frames_of_utterance = np.diff(bounds)
    features = _emit(rng, states, pdf, np.repeat(speaker, frames_of_utterance), speakers)
    return Speech(features, pdf, enters, bounds, states, speaker)


def stay_probability(states: NDArray[np.int32]) -> NDArray[np.float64]:
    """(C,) the self-loop's probability in each pdf's state: silence lasts longer."""
    return np.where(states[:, 0] == 0, STAY_SILENT, STAY)


def _phone_strings(
    rng: np.random.Generator, utterances: int, weights: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Phones of all utterances end to end, silence around each, and where each begins."""
    lexicon = [1 + rng.choice(PHONES - 1, rng.integers(2, 6), p=weights) for _ in range(_WORDS)]
    chance = 1 / np.arange(1, _WORDS + 1)
    silence = np.zeros(1, np.int64)
    pieces: list[NDArray[np.int64]] = []
    first = np.zeros(utterances, np.int64)
    length = 0
    for utterance in range(utterances):
        first[utterance] = length
        words = rng.choice(
            _WORDS, rng.integers(*_WORDS_PER_UTTERANCE, endpoint=True), p=chance / chance.sum()
        )
        parts = [silence]
        for word, pause in zip(words, rng.random(len(words)) < _PAUSE, strict=True):
            parts.append(lexicon[word])
            if pause:
                parts.append(silence)
        if parts[-1] is not silence:
            parts.append(silence)
        pieces.extend(parts)
        length += sum(map(len, parts))
    return np.concatenate(pieces), first


class _Tree:
    """Ties (phone, left, right) to a pdf for each state, as a decision tree's leaves would."""

    def __init__(self, first: NDArray[np.int64], count: NDArray[np.int64], group: NDArray) -> None:
        self._first, self._count, self._group = first, count, group

    def __call__(
        self, phone: NDArray[np.int64], before: NDArray[np.int64], after: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        """(K, 3) pdfs: the first state follows the left neighbour, the last the right one."""
        out = np.empty((len(phone), STATES), np.int32)
        for state in range(STATES):
            left = self._group[phone, state, before]
            right = self._group[phone, state, after]
            choice = (left, left + right, right)[state] % self._count[phone, state]
            out[:, state] = self._first[phone, state] + choice
        return out


def _tree(
    rng: np.random.Generator, classes: int, frequency: NDArray[np.int64]
) -> tuple[NDArray[np.int32], _Tree]:
    """Shares `classes` leaves among the phones' states, frequent phones getting more."""
    share = np.repeat((1.0 + frequency) ** 0.7, STATES)
    limit = np.full(PHONES * STATES, _MAX_LEAVES)
    limit[:STATES] = 1  # silence sounds the same everywhere
    count = np.ones_like(limit)
    for _ in range(classes - len(count)):
        # To the state that is owed most and still has neighbours to tell apart.
        count[np.argmax(np.where(count < limit, share / count, 0))] += 1
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    states = np.repeat(np.indices((PHONES, STATES)).reshape(2, -1).T, count, axis=0)
    group = np.argsort(rng.random((PHONES, STATES, PHONES)), axis=-1)
    shape = (PHONES, STATES)
    return states.astype(np.int32), _Tree(first.reshape(shape), count.reshape(shape), group)


def _emit(
    rng: np.random.Generator,
    states: NDArray[np.int32],
    pdf: NDArray[np.int32],
    speaker: NDArray[np.int64],
    speakers: int,
) -> NDArray[np.float32]:
    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, dtype=np.float32)

    centre = _SPREAD * normal(PHONES, 1, DIMENSION) + _STATE_SPREAD * normal(
        PHONES, STATES, DIMENSION
    )
    mean = centre[states[:, 0], states[:, 1]] + _CONTEXT_SPREAD * normal(len(states), DIMENSION)
    features = _smooth(mean[pdf], (0.2, 0.6, 0.2)) + _smooth(
        normal(len(pdf), DIMENSION), (0.45, 0.77, 0.45)
    )
    warp = np.eye(DIMENSION, dtype=np.float32) + _SPEAKER_WARP * normal(
        speakers, DIMENSION, DIMENSION
    )
    shift = _SPEAKER_SHIFT * normal(speakers, DIMENSION)
    for number in range(speakers):
        mine = speaker == number
        features[mine] = features[mine] @ warp[number] + shift[number]
    return (features * _CEPSTRAL_SCALE).astype(np.float32)


def _smooth(frames: NDArray[np.float32], kernel: tuple[float, float, float]) -> NDArray[np.float32]:
    """Mixes each frame with its neighbours; utterances meet in silence, so no seam is audible."""
    out = np.float32(kernel[1]) * frames
    out[1:] += np.float32(kernel[0]) * frames[:-1]
    out[:-1] += np.float32(kernel[2]) * frames[1:]
    return out
