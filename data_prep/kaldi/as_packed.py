"""Reads feature folders as for a shard set, by the options that its manifest recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_prep.kaldi.stream_options import StreamOptions, is_ivectors
from hpcddl.common.errors import UserError
from hpcddl.data.manifest import Manifest


def streams_as_packed(manifest: Manifest, words: Sequence[str]) -> tuple[StreamOptions, ...]:
    """`words`, DIR[,key=value...], with the options of the folders that the set was packed from.

    Keys given now come after those of the packing, and so replace them. Raises UserError for a set
    that was not packed from Kaldi's files, or other folders than it was packed from.
    """
    packed = manifest.provenance.get("data")
    if manifest.provenance.get("tool") != "hpcddl prep kaldi" or not packed:
        raise UserError(
            "--posteriors: the network's shards do not say how their features were made; "
            "must be a set packed by hpcddl prep kaldi"
        )
    if len(words) != len(packed):
        raise UserError(
            f"--feats: {len(words)} given, the shards were packed from {len(packed)}: "
            f"{' '.join(packed)}; must be one for each, in this order"
        )
    return tuple(map(_as_packed, words, packed))


def _as_packed(word: str, packed: str) -> StreamOptions:
    directory, *settings = word.split(",")
    before, *kept = packed.split(",")
    # Of frames the order of the deltas is always recorded, of i-vectors nothing.
    if is_ivectors(Path(directory)) == bool(kept):
        kinds = ("feats.scp", "ivector_online.scp")
        raise UserError(
            f"--feats {directory}: in its place the shards were packed from {before}; "
            f"must be a folder with {kinds[not kept]}"
        )
    return StreamOptions.parse(",".join([directory, *kept, *settings]), StreamOptions(Path()))
