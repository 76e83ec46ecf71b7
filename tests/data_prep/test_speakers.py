"""Held-out speakers share no utterance, and no copy of one, with training."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.speakers import drawn, families, named
from hpcddl.errors import UserError

SPEAKERS = {"a1": "ann", "a2": "ann", "b1": "bob", "sp-a1": "sp-ann", "sp-b1": "sp-bob", "c": "cy"}
COPIES = {"sp-a1": "a1", "sp-b1": "b1"}


def test_copies_belong_to_their_originals_family():
    family = families(SPEAKERS, COPIES)
    assert family["ann"] == family["sp-ann"] != family["bob"] == family["sp-bob"]
    assert len(set(family.values())) == 3
    assert named(["sp-bob"], family) == {"bob", "sp-bob"}


def test_families_join_through_any_chain_of_copies():
    """x and z share no original, but both share one with y."""
    speakers = {"1": "z", "2": "y", "3": "y", "4": "x"}
    assert set(families(speakers, {"1": "o", "2": "o", "3": "p", "4": "p"}).values()) == {"x"}


def test_copies_without_their_original_stay_together():
    """Two copies of an utterance that is not in the corpus itself."""
    family = families({"sp0.9-a": "s", "sp1.1-a": "t"}, {"sp0.9-a": "a", "sp1.1-a": "a"})
    assert family["s"] == family["t"]


def test_an_unknown_speaker_is_named():
    with pytest.raises(UserError, match="'dan' has no utterances; allowed: ann, bob, cy, sp-ann"):
        named(["ann", "dan"], families(SPEAKERS, COPIES))


@given(
    st.dictionaries(st.text("abc", min_size=1), st.integers(1, 100), min_size=1, max_size=9),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_a_drawn_set_reaches_the_fraction_and_no_more(frames, fraction, seed):
    """Without its last speaker it would be below; the same seed draws the same."""
    family = {speaker: speaker for speaker in frames}
    chosen = drawn(frames, family, fraction, seed)
    assert chosen == drawn(dict(reversed(frames.items())), family, fraction, seed)
    held, total = sum(frames[speaker] for speaker in chosen), sum(frames.values())
    assert held >= fraction * total
    assert any(held - frames[speaker] < fraction * total for speaker in chosen)


def test_seeds_draw_different_speakers():
    frames = {str(number): 1 for number in range(20)}
    family = {speaker: speaker for speaker in frames}
    assert len({frozenset(drawn(frames, family, 0.2, seed)) for seed in range(5)}) > 1


def test_a_family_is_drawn_whole():
    family = families(SPEAKERS, COPIES)
    frames = dict.fromkeys(family, 10)
    for seed in range(10):
        chosen = drawn(frames, family, 0.3, seed)
        assert ("ann" in chosen) == ("sp-ann" in chosen)
        assert ("bob" in chosen) == ("sp-bob" in chosen)
