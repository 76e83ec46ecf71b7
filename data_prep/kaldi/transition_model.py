"""Transition-ids to pdf-ids, from the head of a Kaldi model (final.mdl), without Kaldi.

Layout of src/hmm/hmm-topology.cc and transition-model.cc: a topology (states and transitions per
phone), then tuples (phone, state, forward pdf, self-loop pdf). Transition-ids count from 1 over the
tuples' transitions; one that leads back to its own state is the self-loop. What follows in the
file, log-probabilities and the acoustic model, is not read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from data_prep.kaldi.matrix import BadRecordError, read_exactly
from hpcddl.common.errors import UserError

_LONGEST = 1 << 26  # entries of any list; more means a garbled file
_MOST_IDS = 1 << 22


@dataclass(frozen=True)
class TransitionModel:
    """Arrays over the transition-ids, which begin at 1: entry 0 is -1 (or False).

    `pdf` (I+1,) int32, `state` (I+1,) int32 the tuple's number from 0, `self_loop` (I+1,) bool.
    """

    pdf: NDArray[np.int32]
    state: NDArray[np.int32]
    self_loop: NDArray[np.bool_]
    num_pdfs: int

    def pdfs(self, transition_ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """(T,) pdf-ids.

        Raises:
            ValueError: an id that the model does not have.
        """
        try:
            # Unsigned, so that negative ids are past the end; only id 0 has no pdf.
            pdfs = self.pdf.take(transition_ids.astype(np.int32, copy=False).view(np.uint32))
        except IndexError:
            pdfs = self.pdf[:1]
        if pdfs.min(initial=0) < 0:
            low, high = transition_ids.min(), transition_ids.max()
            raise ValueError(
                f"transition-ids span {low} .. {high}, the model has 1 .. {len(self.pdf) - 1}"
            )
        return pdfs


def find_model(directory: Path) -> Path:
    """`final.mdl` of an experiment, or the file it links to where links were copied as text.

    Raises UserError when there is none.
    """
    path = directory / "final.mdl"
    if not path.is_file():
        raise UserError(f"{path}: no such model; name another with --model")
    if path.stat().st_size < 256:
        target = path.read_bytes().decode("utf-8", "replace").strip()
        if target and "\0" not in target and (directory / target).is_file():
            return directory / target
    return path


def read_transition_model(path: Path) -> TransitionModel:
    """The transition model at the head of the binary model `path`.

    Raises UserError when the file is missing, cut, text, or no model.
    """
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"\0B":
                raise BadRecordError("no binary Kaldi model")
            _expect(file, "<TransitionModel>")
            topology = _read_topology(file)
            return _read_tuples(file, *topology)
    except OSError as error:
        raise UserError(f"{path}: cannot read the model ({error.strerror})") from None
    except (BadRecordError, IndexError) as error:
        raise UserError(f"{path}: {error}") from None


# A state's transitions: the states they lead to.
_Topology = list[list[list[int]]]


def _read_topology(file: BinaryIO) -> tuple[NDArray[np.int32], _Topology]:
    """Phone -> entry, and each entry's states' destinations."""
    _expect(file, "<Topology>")
    _read_vector(file)  # the phones: the next vector has them too
    entry_of = _read_vector(file)
    count = _read_int(file)
    # Models whose self-loops have pdfs of their own (chain) say so by a count of -1.
    separate = count == -1
    if separate:
        count = _read_int(file)
    entries: _Topology = []
    for _ in range(_checked(count)):
        states = []
        for _ in range(_checked(_read_int(file))):
            _read_int(file)  # pdf class
            if separate:
                _read_int(file)
            destinations = []
            for _ in range(_checked(_read_int(file))):
                destinations.append(_read_int(file))
                read_exactly(file, 5)  # its initial probability
            states.append(destinations)
        entries.append(states)
    _expect(file, "</Topology>")
    return entry_of, entries


def _read_tuples(
    file: BinaryIO, entry_of: NDArray[np.int32], entries: _Topology
) -> TransitionModel:
    token = _read_token(file)
    if token not in ("<Tuples>", "<Triples>"):
        raise BadRecordError(f"garbled: {token!r}, expected <Tuples> or <Triples>")
    width = 4 if token == "<Tuples>" else 3
    count = _checked(_read_int(file))
    element = np.dtype([("size", "u1"), ("value", "<i4")])
    cells = np.frombuffer(read_exactly(file, 5 * width * count), element).reshape(count, width)
    if not (cells["size"] == 4).all():
        raise BadRecordError("garbled: a tuple holds an integer that is not of 4 bytes")
    _expect(file, token.replace("<", "</"))
    pdf, state, self_loop = [-1], [-1], [False]
    for number, row in enumerate(cells["value"].tolist()):
        phone, hmm_state, forward = row[:3]
        if not (0 <= phone < len(entry_of) and 0 <= entry_of[phone] < len(entries)):
            raise BadRecordError(f"garbled: tuple {number} has phone {phone}, not in the topology")
        states = entries[entry_of[phone]]
        if not 0 <= hmm_state < len(states):
            raise BadRecordError(f"garbled: tuple {number} has state {hmm_state} of {len(states)}")
        if len(pdf) + len(states[hmm_state]) > _MOST_IDS:
            raise BadRecordError(f"garbled: more than {_MOST_IDS} transition-ids")
        for destination in states[hmm_state]:
            loop = destination == hmm_state
            pdf.append(row[-1] if loop else forward)
            state.append(number)
            self_loop.append(loop)
    return TransitionModel(
        np.array(pdf, np.int32),
        np.array(state, np.int32),
        np.array(self_loop),
        int(cells["value"][:, 2:].max(initial=-1)) + 1,
    )


def _read_token(file: BinaryIO) -> str:
    token = b""
    while not token.endswith(b" "):
        token += read_exactly(file, 1)
        if len(token) > 64:
            raise BadRecordError(f"garbled: no Kaldi token in {token[:20]!r}")
    return token[:-1].decode("latin-1")


def _expect(file: BinaryIO, token: str) -> None:
    if (got := _read_token(file)) != token:
        raise BadRecordError(f"no transition model: found {got!r}, expected {token}")


def _read_int(file: BinaryIO) -> int:
    size, value = struct.unpack("<bi", read_exactly(file, 5))
    if size != 4:
        raise BadRecordError(f"garbled: an integer of {size} bytes, expected 4")
    return int(value)


def _read_vector(file: BinaryIO) -> NDArray[np.int32]:
    return np.frombuffer(read_exactly(file, 4 * _checked(_read_int(file))), "<i4")


def _checked(count: int) -> int:
    if not 0 <= count <= _LONGEST:
        raise BadRecordError(f"garbled: a list of {count} entries")
    return count
