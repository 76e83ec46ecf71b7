"""Transition-ids to pdf-ids, on a real experiment, a written model, and broken ones."""

import struct

import numpy as np
import pytest

from data_prep.kaldi.alignments import alignment_files, read_alignments
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.scp import MatrixReader
from data_prep.kaldi.transition_model import find_model, read_transition_model
from data_prep.kaldi.write import transition_model_bytes
from hpcddl.common.errors import UserError
from tests.data_prep.tables import read_scp

EXPERIMENTS = ["mono", "mono_ali", "tri1"]


def check_laws(model, alignments) -> int:
    """Every id of the model, every pdf below num_pdfs, self-loops only inside a state; frames."""
    frames = 0
    for _, ids in alignments:
        pdfs = model.pdfs(ids)
        assert 0 <= pdfs.min() <= pdfs.max() < model.num_pdfs
        # Kaldi reorders: a state is entered by a transition that leaves it, then looped.
        loops, states = model.self_loop[ids], model.state[ids]
        assert not loops[0]
        assert np.array_equal(states[1:][loops[1:]], states[:-1][loops[1:]])
        frames += len(ids)
    return frames


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_real_experiments(digits, name):
    """No length differs from the features', no transition is illegal, every pdf is the tree's."""
    folder = digits / "exp" / name
    model = read_transition_model(find_model(folder))
    alignments = [pair for path in alignment_files(folder) for pair in read_alignments(path)]
    paths = PathMap.parse([f"/home/selma/kaldi/egs/digits={digits}"], near=digits)
    entries = read_scp(digits / "data" / "train" / "feats.scp", paths)
    reader = MatrixReader(paths)
    assert [key for key, ids in alignments if reader.shape(entries[key])[0] != len(ids)] == []
    reader.close()
    assert len(alignments) == 1000
    assert check_laws(model, alignments) > 30000
    # The acoustic model, which is not read, says how many pdfs it has.
    data = find_model(folder).read_bytes()
    said = data.index(b"<NUMPDFS> \4") + len(b"<NUMPDFS> \4")
    assert model.num_pdfs == struct.unpack_from("<i", data, said)[0]


def test_the_mini_corpus(corpus):
    """The written model and alignments obey the same laws; every pdf of the model has a state."""
    model = read_transition_model(find_model(corpus / "ali"))
    alignments = [
        pair for path in alignment_files(corpus / "ali") for pair in read_alignments(path)
    ]
    assert model.num_pdfs == 100
    assert check_laws(model, alignments) > 2000
    assert np.array_equal(np.unique(model.pdf[1:]), np.arange(100))


def model_bytes() -> bytes:
    tuples = np.array([[1, 0, 0], [1, 1, 1], [2, 0, 2], [2, 0, 3], [2, 1, 1]], np.int32)
    return transition_model_bytes(2, 2, tuples, np.full(5, 0.6))


def test_ids_count_over_the_tuples_transitions(tmp_path):
    """Two transitions per state, the self-loop first: ids 2k+1 and 2k+2 of tuple k."""
    (tmp_path / "final.mdl").write_bytes(model_bytes())
    model = read_transition_model(tmp_path / "final.mdl")
    assert model.pdf.tolist() == [-1, 0, 0, 1, 1, 2, 2, 3, 3, 1, 1]
    assert model.state.tolist() == [-1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert model.self_loop.tolist() == [False] + [True, False] * 5
    assert model.num_pdfs == 4


def test_tuples_give_self_loops_their_own_pdf(tmp_path):
    """Chain models: one state, a forward pdf and a self-loop pdf, and a topology that says so."""

    def ints(*values: int) -> bytes:
        return b"".join(struct.pack("<bi", 4, value) for value in values)

    def arc(destination: int) -> bytes:
        return ints(destination) + struct.pack("<bf", 4, 0.5)

    data = b"\0B<TransitionModel> <Topology> "
    data += ints(1) + struct.pack("<i", 1) + ints(2) + struct.pack("<ii", -1, 0)
    data += ints(-1, 1, 2)  # not an HMM; one entry of two states
    data += ints(0, 1, 2) + arc(0) + arc(1)  # forward and self-loop pdf classes
    data += ints(-1, -1, 0) + b"</Topology> "
    data += b"<Tuples> " + ints(2, 1, 0, 4, 7, 1, 0, 5, 6) + b"</Tuples> <LogProbs> ..."
    (tmp_path / "final.mdl").write_bytes(data)
    model = read_transition_model(tmp_path / "final.mdl")
    assert model.pdf.tolist() == [-1, 7, 4, 6, 5]
    assert model.num_pdfs == 8


@pytest.mark.parametrize("bad", [0, -1, 11])
def test_an_id_the_model_does_not_have(tmp_path, bad):
    (tmp_path / "final.mdl").write_bytes(model_bytes())
    model = read_transition_model(tmp_path / "final.mdl")
    with pytest.raises(ValueError, match=r"the model has 1 \.\. 10"):
        model.pdfs(np.array([1, bad, 2], np.int32))
    assert model.pdfs(np.zeros(0, np.int32)).shape == (0,)


def test_a_cut_head_is_an_error_at_any_length(tmp_path):
    data = model_bytes()
    for length in range(data.index(b"</Triples>") + 10):
        (tmp_path / "final.mdl").write_bytes(data[:length])
        with pytest.raises(UserError, match=r"final.mdl: "):
            read_transition_model(tmp_path / "final.mdl")


@pytest.mark.parametrize("value", [-5, 2**31 - 1, 77])
def test_garbled_integers_are_errors(tmp_path, value):
    """Any integer of the topology or the tuples replaced by nonsense: an error or another model,
    never a crash or a huge allocation.
    """
    data = model_bytes()
    end = data.index(b"</Triples>")
    for offset in range(data.index(b"<Topology>") + 11, end - 3):
        changed = data[:offset] + struct.pack("<i", value) + data[offset + 4 :]
        (tmp_path / "final.mdl").write_bytes(changed)
        try:
            model = read_transition_model(tmp_path / "final.mdl")
        except UserError:
            continue
        assert len(model.pdf) == 11


def test_no_model(tmp_path):
    with pytest.raises(UserError, match=r"final.mdl: no such model; name another with --model"):
        find_model(tmp_path)
    (tmp_path / "final.mdl").write_text("<TransitionModel> <Topology>")
    with pytest.raises(UserError, match="no binary Kaldi model"):
        read_transition_model(tmp_path / "final.mdl")
    (tmp_path / "final.mdl").write_bytes(b"\0B<Nnet3> ")
    with pytest.raises(UserError, match="no transition model: found '<Nnet3>'"):
        read_transition_model(tmp_path / "final.mdl")


def test_links_copied_as_text_are_followed(tmp_path):
    """Git without symbolic links leaves `final.mdl` holding the name it points to."""
    (tmp_path / "35.mdl").write_bytes(model_bytes())
    (tmp_path / "final.mdl").write_text("35.mdl")
    assert find_model(tmp_path) == tmp_path / "35.mdl"
    (tmp_path / "final.mdl").write_text("36.mdl")
    assert find_model(tmp_path) == tmp_path / "final.mdl"
