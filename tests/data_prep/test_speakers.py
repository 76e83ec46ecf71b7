"""Held-out speakers share no utterance, and no copy of one, with training."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.kaldi.speakers import drawn, families, named, original_name
from hpcddl.common.errors import UserError

COPIES = [
    ("ann", "a1"),
    ("ann", "a2"),
    ("bob", "b1"),
    ("sp-ann", "a1"),
    ("sp-bob", "b1"),
    ("cy", "c"),
]


def test_copies_belong_to_their_originals_family():
    family = families(COPIES)
    assert family["ann"] == family["sp-ann"] != family["bob"] == family["sp-bob"]
    assert len(set(family.values())) == 3
    assert named(["sp-bob"], family) == {"bob", "sp-bob"}


def test_families_join_through_any_chain_of_copies():
    """x and z share no original, but both share one with y."""
    assert set(families([("z", "o"), ("y", "o"), ("y", "p"), ("x", "p")]).values()) == {"x"}


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 9)), max_size=30))
def test_families_are_the_connected_components(pairs):
    """Against joining sets until nothing changes."""
    family = families((speaker, str(number)) for speaker, number in pairs)
    groups = [({speaker}, {number}) for speaker, number in pairs]
    joined = True
    while joined:
        joined = False
        for one in groups:
            for other in groups:
                if one is not other and (one[0] & other[0] or one[1] & other[1]):
                    groups.remove(other)
                    one[0].update(other[0])
                    one[1].update(other[1])
                    joined = True
                    break
            if joined:
                break
    assert family == {name: min(group) for group, _ in groups for name in group}


def test_a_copy_is_known_by_its_name_where_no_table_says_so():
    """As utils/perturb_data_dir_speed.sh names them; nothing else is cut off."""
    assert original_name("sp0.9-sw02001-A_000098-001156") == "sw02001-A_000098-001156"
    assert original_name("sp1.1-x") == "x"
    for name in ("sw02001-A_000098-001156", "spk01-x", "sp-x", "sp0.9-", "en_sp0.9-x"):
        assert original_name(name) == name


def test_an_unknown_speaker_is_named():
    with pytest.raises(UserError, match="'dan' has no utterances; must be among ann, bob, cy"):
        named(["ann", "dan"], families(COPIES))


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
    family = families(COPIES)
    frames = dict.fromkeys(family, 10)
    for seed in range(10):
        chosen = drawn(frames, family, 0.3, seed)
        assert ("ann" in chosen) == ("sp-ann" in chosen)
        assert ("bob" in chosen) == ("sp-bob" in chosen)
