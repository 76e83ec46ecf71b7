"""The steps of a packing, for one process, one job of an array, or the ranks of an MPI job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.kaldi.corpus import KaldiCorpus, Sources
from data_prep.kaldi.pack import Layout, manifest, pack_parts
from data_prep.kaldi.plan import HeldOut, Plan, load_plan, make_plan, save_plan
from data_prep.packing import SPLITS, Packing, Part, parts, parts_of_job
from hpcddl.common.errors import UserError
from hpcddl.common.progress import Progress
from hpcddl.data.manifest import Manifest

if TYPE_CHECKING:
    from hpcddl.cluster.world import World

_TABLES = (
    *("feats.scp", "ivector_online.scp", "ivector_period", "utt2num_frames"),
    *("cmvn.scp", "utt2spk", "utt2uniq"),
)


@dataclass(frozen=True)
class Packer:
    """One packing: what, how and where to."""

    sources: Sources
    layout: Layout
    heldout: HeldOut
    packing: Packing
    provenance: dict[str, Any]

    def estimate(self) -> str:
        """How many windows and bytes the set will have, from a plan that is not stored."""
        with self._corpus() as corpus:
            plan, skipped = make_plan(corpus, self.layout.windows, self.heldout)
            skipped.close()
        return self._size(plan)

    def plan(self) -> str:
        """Makes the plan that the jobs of an array share; says how large the set will be."""
        with self._corpus() as corpus:
            return self._size(self._planned(corpus))

    def everything(self) -> Manifest:
        """Plans, packs and finishes in this process."""
        # A folder that was there is perhaps another job's, at work on its first shard.
        ours = not self.packing.folder.exists()
        with self._corpus() as corpus:
            plan = self._planned(corpus)
            with self._keeping(ours):
                self._pack(corpus, plan, self._missing(plan), "packing")
                return self._finish(corpus, plan, read_all=False)

    def job(self, number: int, jobs: int) -> str:
        """Packs what is missing of part `number` (from 1) of `jobs`; says how much it was."""
        with self._corpus() as corpus:
            plan = self._planned(corpus)
            mine = parts_of_job(self._parts(plan), number, jobs)
            missing = self._missing(plan, mine)
            self._pack(corpus, plan, missing, f"job {number} of {jobs}")
        there = len(mine) - len(missing)
        return f"job {number} of {jobs}: {len(missing)} shards packed, {there} were there"

    def merge(self) -> Manifest:
        """Verifies every byte of all parts and finishes the set."""
        with self._corpus() as corpus:
            plan = load_plan(self.packing.folder, self._asked(corpus))
            if plan is None:
                raise UserError(f"{self.packing.folder}: nothing packed yet; run the jobs first")
            return self._finish(corpus, plan, read_all=True)

    def on_ranks(self, world: World) -> Manifest | None:
        """Does what `everything` does, divided among the ranks; the manifest is on rank 0."""
        first = world.rank == 0
        with world.together(self._corpus) as corpus:
            # Rank 0 before the others, who then find the plan.
            world.together(lambda: self._planned(corpus) if first else None)
            plan = world.together(lambda: self._planned(corpus))
            missing: list[Part] = world.comm.bcast(self._missing(plan) if first else [])
            mine = parts_of_job(missing, world.rank + 1, world.size)
            self._pack(corpus, plan, mine, f"rank 0 of {world.size}" if first else None)
            world.comm.Barrier()
            return world.together(
                lambda: self._finish(corpus, plan, read_all=False) if first else None
            )

    def _corpus(self) -> KaldiCorpus:
        return KaldiCorpus(self.sources)

    def _planned(self, corpus: KaldiCorpus) -> Plan:
        """Reads the stored plan, or makes it if there is none and the disk has room for the set."""
        asked = self._asked(corpus)
        plan = load_plan(self.packing.folder, asked)
        if plan is None:
            plan, skipped = make_plan(corpus, self.layout.windows, self.heldout)
            self.packing.need_room(self._bytes(plan))
            self.packing.make()
            with skipped:
                plan = save_plan(self.packing.folder, corpus, plan, skipped, asked)
        return plan

    def _asked(self, corpus: KaldiCorpus) -> dict[str, Any]:
        """Options and inputs (their sizes and times): if one of them changes, so must the plan."""
        files = [stream.directory / name for stream in self.sources.streams for name in _TABLES]
        files += [stream.stats for stream in self.sources.streams if stream.stats]
        files += [*corpus.files, *self._model()]
        stats = {str(path): path.stat() for path in files if path.is_file()}
        return {
            **self.provenance,
            "frames": self.layout.windows.frames,
            "dtype": self.layout.dtype,
            "windows_per_shard": self.layout.per_shard,
            **{path: [stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()},
        }

    def _model(self) -> list[Path]:
        return [self.sources.classes] if isinstance(self.sources.classes, Path) else []

    def _parts(self, plan: Plan) -> list[Part]:
        return parts(plan.samples, self.layout.per_shard)

    def _missing(self, plan: Plan, among: list[Part] | None = None) -> list[Part]:
        fields = self.layout.fields(plan)
        wanted = self._parts(plan) if among is None else among
        return [part for part in wanted if self.packing.record(part, fields) is None]

    def _pack(self, corpus: KaldiCorpus, plan: Plan, wanted: list[Part], what: str | None) -> None:
        self.packing.make()
        total = sum(part.samples for part in wanted)
        with Progress(total, what or "", "windows", shown=what is not None) as progress:
            pack_parts(corpus, plan, self.layout, self.packing, wanted, progress.add)

    def _finish(self, corpus: KaldiCorpus, plan: Plan, read_all: bool) -> Manifest:
        fields = self.layout.fields(plan)
        records = self.packing.collect(self._parts(plan), fields, read_all)
        result = manifest(corpus, plan, self.layout, records, self.provenance)
        self.packing.finish(result)
        return result

    @contextmanager
    def _keeping(self, ours: bool) -> Iterator[None]:
        """After an error keeps finished shards, but not a folder of `ours` that has none."""
        try:
            yield
        except UserError as error:
            if self.packing.is_bare():
                if ours:
                    self.packing.discard()
                raise
            raise UserError(
                f"{error}; the finished shards are kept in {self.packing.folder}, "
                "and the same command goes on with them"
            ) from None

    def _bytes(self, plan: Plan) -> int:
        sample = sum(field.sample_bytes for field in self.layout.fields(plan).values())
        return sample * sum(plan.samples.values())

    def _size(self, plan: Plan) -> str:
        lines = []
        for split in SPLITS:
            count = {
                name: plan.counts[name][split] for name in ("utterances", "speakers", "frames")
            }
            lines.append(
                f"{split}: {count['utterances']} utterances of {count['speakers']} speakers, "
                f"{count['frames']} frames, {plan.samples[split]} windows"
            )
        fields = self.layout.fields(plan)
        windows = sum(plan.samples.values())
        shape = " x ".join(map(str, fields["features"].shape))
        lines.append(
            f"{windows} windows of {shape} in {self.layout.dtype}: "
            f"{windows * fields['features'].sample_bytes / 1e9:.3g} GB of features, "
            f"{self._bytes(plan) / 1e9:.3g} GB in all, in {len(self._parts(plan))} shards"
        )
        return "\n".join([*skipped_lines(plan.counts["skipped"]), *lines])


def skipped_lines(skipped: dict[str, int]) -> list[str]:
    """One line for each reason."""
    return [f"skipped {count} utterances: {reason}" for reason, count in skipped.items()]
