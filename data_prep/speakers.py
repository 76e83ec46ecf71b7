"""Which speakers are held out: whole ones, together with every altered copy of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from hpcddl.errors import UserError


def families(speaker_of: Mapping[str, str], original_of: Mapping[str, str]) -> dict[str, str]:
    """Speaker -> a name shared by all speakers whose utterances are copies of one original.

    `original_of` is Kaldi's utt2uniq (speed-perturbed copies have speakers of their own); an
    utterance that is not in it is its own original.
    """
    parent = {speaker: speaker for speaker in speaker_of.values()}

    def root(speaker: str) -> str:
        while parent[speaker] != speaker:
            parent[speaker] = parent[parent[speaker]]
            speaker = parent[speaker]
        return speaker

    first: dict[str, str] = {}
    for utterance, speaker in speaker_of.items():
        original = original_of.get(utterance, utterance)
        one, other = sorted((root(first.setdefault(original, speaker)), root(speaker)))
        parent[other] = one
    return {speaker: root(speaker) for speaker in parent}


def named(speakers: Iterable[str], family_of: Mapping[str, str]) -> set[str]:
    """The named speakers and their families; raises UserError for a name that nobody has."""
    chosen = set()
    for speaker in speakers:
        if speaker not in family_of:
            known = sorted(family_of)
            more = f" and {len(known) - 10} more" if len(known) > 10 else ""
            raise UserError(
                f"--heldout-speakers: {speaker!r} has no utterances; "
                f"allowed: {', '.join(known[:10])}{more}"
            )
        chosen.add(family_of[speaker])
    return {speaker for speaker, family in family_of.items() if family in chosen}


def drawn(
    frames_of: Mapping[str, int], family_of: Mapping[str, str], fraction: float, seed: int
) -> set[str]:
    """Families in an order drawn from `seed`, until they hold `fraction` of all frames."""
    frames: dict[str, int] = {}
    for speaker, count in frames_of.items():
        frames[family_of[speaker]] = frames.get(family_of[speaker], 0) + count
    order = np.random.default_rng(seed).permutation(sorted(frames)).tolist()
    wanted = fraction * sum(frames.values())
    chosen: set[str] = set()
    held = 0
    for family in order:
        if held >= wanted:
            break
        chosen.add(family)
        held += frames[family]
    return {speaker for speaker in frames_of if family_of[speaker] in chosen}
