"""Every learner's state on disk: all of it or none, checked when it is read.

RUN/checkpoints/epoch-0003/ (or step-00001200/) holds `learner-00000.pt` ... and, written last,
`manifest.json` with their SHA-256 and its own. The folder is made under a hidden name and renamed
when whole.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.files import sha256, sync_folder, write_whole
from hpcddl.data.identity import Fingerprint
from hpcddl.run.finite_state import float_tensors
from hpcddl.training.position import Position

VERSION = 4
UNSEALED = 3  # the same, but manifests had no checksum of their own


class Damaged(UserError):
    """A checkpoint is not, or not all, as it was written."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its folder and its manifest."""

    folder: Path
    learners: int
    position: Position
    log: dict[str, Any]  # what metrics and summary need to go on
    files: dict[str, str]  # name -> SHA-256

    @property
    def data(self) -> Fingerprint:
        """The fingerprint of the data set; None where an earlier version wrote the checkpoint."""
        return self.log.get("data")

    def learner(self, rank: int) -> dict[str, Any]:
        """The state of learner `rank`, after its checksum.

        Raises:
            Damaged: missing or altered.
        """
        path = self.checked(rank)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state

    def checked(self, rank: int) -> Path:
        """The file of learner `rank`, all of which has been read and is as it was written.

        Raises:
            Damaged: missing, unreadable or altered.
        """
        path = self.folder / _learner_file(rank)
        try:
            found = sha256(path)
        except FileNotFoundError:
            raise Damaged(f"{path}: missing") from None
        except OSError as error:
            raise Damaged(f"{path}: cannot be read: {error.strerror}") from None
        if found != self.files[path.name]:
            raise Damaged(f"{path}: altered: its SHA-256 is not the one in its manifest")
        return path


class Due(Protocol):
    """When checkpoints are written (config.Checkpointing)."""

    every_epochs: int
    every_steps: int
    keep_epochs: tuple[int, ...]


def is_due(position: Position, options: Due, epochs: int, steps_per_epoch: int) -> bool:
    """Whether a checkpoint belongs at `position` of a run of `epochs` epochs."""
    if position.step == steps_per_epoch:
        return False  # the evaluation comes first
    if position.step:
        return options.every_steps > 0 and position.steps % options.every_steps == 0
    return (
        position.epoch % options.every_epochs == 0
        or position.epoch in options.keep_epochs
        or position.epoch == epochs
    )


def save(
    run: Path,
    world: World,
    position: Position,
    state: dict[str, Any],
    log: dict[str, Any],
    keep_last: int,
    keep_epochs: Iterable[int],
) -> None:
    """Writes every learner's `state`; then drops what `keep_last` and `keep_epochs` do not keep.

    Raises:
        UserError: a rank could not write; older checkpoints stay as they were.
    """
    folder = folder_of(run, position)
    partial = folder.with_name(f".{folder.name}.partial")

    def prepare() -> None:
        if world.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)

    def write() -> str:
        path = partial / _learner_file(world.rank)
        with open(path, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        return sha256(path)

    def finish(checksums: list[str]) -> None:
        if world.rank != 0:
            return
        manifest = {
            "version": VERSION,
            "learners": world.size,
            "position": vars(position),
            "log": log,
            "files": {_learner_file(rank): text for rank, text in enumerate(checksums)},
        }
        write_manifest(partial, manifest)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
        sync_folder(folder.parent)
        _prune(run, keep_last, set(keep_epochs))

    try:
        world.together(lambda: _named(folder, prepare))
        checksum = world.together(lambda: _named(folder, write))
        checksums = world.comm.allgather(checksum)
        world.together(lambda: _named(folder, lambda: finish(checksums)))
    except UserError:
        if world.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
        raise


def folder_of(run: Path, position: Position) -> Path:
    """Where the checkpoint at `position` lies."""
    name = f"epoch-{position.epoch:04d}" if position.step == 0 else f"step-{position.steps:08d}"
    return run / "checkpoints" / name


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes `manifest`, with the SHA-256 of its content, completely or not at all."""
    content = {**manifest, "sha256": _digest(manifest)}
    write_whole(folder / "manifest.json", json.dumps(content, indent=1).encode())


def newest(run: Path) -> Checkpoint | None:
    """Finds the latest complete checkpoint, or None; the learners' files are not read.

    Raises:
        UserError: a manifest cannot be read.
    """
    return max(map(read, folders(run)), key=reached, default=None)


def reached(checkpoint: Checkpoint) -> tuple[int, int]:
    """Returns a sort key that grows from each checkpoint of a run to the next."""
    return checkpoint.position.epoch, checkpoint.position.step


def at_epoch(run: Path, epoch: int) -> Checkpoint:
    """The checkpoint of a run after `epoch` epochs.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    folder = run / "checkpoints" / f"epoch-{epoch:04d}"
    if not folder.is_dir():
        kept = [str(int(f.name[6:])) for f in folders(run) if f.name.startswith("epoch-")]
        raise UserError(f"{run}: no checkpoint of epoch {epoch}; kept: {', '.join(kept) or 'none'}")
    return read(folder)


def read(folder: Path) -> Checkpoint:
    """The manifest of one checkpoint.

    Raises:
        Damaged: missing, garbled or altered.
        UserError: of another version.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        stated = manifest.pop("sha256", None)
        if stated != _digest(manifest) and (stated or manifest["version"] == VERSION):
            raise Damaged(f"{path}: altered: its SHA-256 is not the one in it")
        if manifest["version"] not in (UNSEALED, VERSION):
            raise UserError(
                f"{path}: version {manifest['version']}; this hpcddl reads {UNSEALED} and {VERSION}"
            )
        return Checkpoint(
            folder,
            manifest["learners"],
            Position(**manifest["position"]),
            manifest["log"],
            manifest["files"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path}: not a checkpoint's manifest: {error}") from None


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def consensus_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """The strategy's state with every floating-point tensor averaged over the learners.

    Everything else is learner 0's; messages that wait to be mixed are dropped. Sums are in
    float64. The memory holds the sums and the states of two learners.

    Raises:
        Damaged: a learner's file is missing or altered.
    """
    mean = _shared_state(checkpoint, 0)
    sums = [tensor.to(torch.float64, copy=True) for _, tensor in float_tensors(mean)]
    for rank in range(1, checkpoint.learners):
        tensors = float_tensors(_shared_state(checkpoint, rank))
        for total, (_, tensor) in zip(sums, tensors, strict=True):
            total += tensor
    for (_, tensor), total in zip(float_tensors(mean), sums, strict=True):
        tensor.copy_(total.div_(checkpoint.learners))
    return mean


def _shared_state(checkpoint: Checkpoint, rank: int) -> dict[str, Any]:
    """Learner `rank`'s strategy, without what was under way from one learner to another."""
    state: dict[str, Any] = checkpoint.learner(rank)["strategy"]
    return {**state, "pending": None}


def _named(folder: Path, work: Any) -> Any:
    """Turns a disk's error into a UserError that names the checkpoint that was not written."""
    try:
        return work()
    except (OSError, RuntimeError) as error:
        # torch.save raises one of its own over the disk's.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise UserError(f"checkpoint {folder}: not written: {cause.strerror or cause}") from None


def _prune(run: Path, keep_last: int, keep_epochs: set[int]) -> None:
    whole = []
    for folder in folders(run):
        with suppress(Damaged):  # no reason to fail the one just written; --resume sets it aside
            whole.append(read(folder))
    for checkpoint in sorted(whole, key=reached)[:-keep_last]:
        if checkpoint.position.step or checkpoint.position.epoch not in keep_epochs:
            shutil.rmtree(checkpoint.folder)


def folders(run: Path) -> list[Path]:
    """Lists the folders of all checkpoints of a run, also of those damaged since."""
    paths = (run / "checkpoints").glob("*")
    return sorted(p for p in paths if re.fullmatch(r"epoch-\d{4,}|step-\d{8,}", p.name))


def _learner_file(rank: int) -> str:
    return f"learner-{rank:05d}.pt"
