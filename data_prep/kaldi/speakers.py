"""Chooses the held-out speakers, together with every altered copy of their utterances."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping

import numpy as np
import xxhash

from hpcddl.common.errors import UserError

# utils/perturb_data_dir_speed.sh and its kin name copies so.
_COPY = re.compile(r"^(?:sp|vp|pv)\d+(?:\.\d+)?-(?=.)")


def original_name(utterance: str) -> str:
    """The utterance that this one is a perturbed copy of, by its name (`sp0.9-X`), or itself."""
    return _COPY.sub("", utterance)


def families(copies: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Speaker -> a name shared by all speakers whose utterances are copies of one original.

    `copies` has the speaker and the original of every utterance, as speed-perturbed copies have
    speakers of their own. Originals are stored as 64-bit hashes, as there may be millions; if two
    collide, two speakers that are not related end up in the same split.
    """
    numbers: dict[str, int] = {}
    hashes, owners = array("Q"), array("i")
    for speaker, original in copies:
        hashes.append(xxhash.xxh3_64_intdigest(original.encode()))
        owners.append(numbers.setdefault(speaker, len(numbers)))
    parent = list(range(len(numbers)))

    def root(speaker: int) -> int:
        while parent[speaker] != speaker:
            parent[speaker] = parent[parent[speaker]]
            speaker = parent[speaker]
        return speaker

    hashed, owner = np.asarray(hashes), np.asarray(owners)
    order = np.argsort(hashed, kind="stable")
    same = hashed[order][1:] == hashed[order][:-1]
    neighbours = np.stack([owner[order][:-1], owner[order][1:]], axis=1)[same]
    for one, other in np.unique(neighbours, axis=0).tolist():
        parent[root(other)] = root(one)
    names = list(numbers)
    family: dict[int, str] = {}
    for speaker in sorted(names):
        family.setdefault(root(numbers[speaker]), speaker)
    return {speaker: family[root(numbers[speaker])] for speaker in names}


def named(speakers: Iterable[str], family_of: Mapping[str, str]) -> set[str]:
    """The named speakers and their families.

    Raises:
        UserError: a name that nobody has.
    """
    chosen = set()
    for speaker in speakers:
        if speaker not in family_of:
            known = sorted(family_of)
            more = f" and {len(known) - 10} more" if len(known) > 10 else ""
            raise UserError(
                f"--heldout-speakers: {speaker!r} has no utterances; "
                f"must be among {', '.join(known[:10])}{more}"
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
