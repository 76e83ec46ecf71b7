"""`hpcddl data info`: what a shard set holds, by its manifest and names; no sample is read."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from hpcddl.data.manifest import Manifest, read_manifest
from hpcddl.inspect.names import class_names, read_lines

_EXTREMES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl data info`."""
    parser.description = "Say what a shard set holds: samples, classes, and where it comes from."
    parser.epilog = "example: hpcddl data info shards/swb300 --json"
    parser.add_argument("path", type=Path, metavar="PATH", help="the folder of the shard set")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Prints what the set holds."""
    facts = describe(arguments.path)
    print(json.dumps(facts) if arguments.json else _text(facts))
    return 0


def describe(folder: Path) -> dict[str, Any]:
    """All that the set's manifest and names say, for JSON."""
    manifest = read_manifest(folder)
    return {
        "path": str(folder),
        "kind": manifest.kind,
        "fingerprint": manifest.fingerprint,
        "splits": {
            name: {
                "samples": split.samples,
                "shards": len(split.shards),
                "bytes": split.bytes,
                **_sources(folder, manifest, name),
            }
            for name, split in manifest.splits.items()
        },
        "fields": {
            name: {"shape": list(field.shape), "dtype": field.dtype, "bytes": field.sample_bytes}
            for name, field in manifest.fields.items()
        },
        **_classes(folder, manifest),
        "skipped": manifest.skipped.lines if manifest.skipped else 0,
        "counts": manifest.counts,
        "provenance": manifest.provenance,
    }


def _sources(folder: Path, manifest: Manifest, split: str) -> dict[str, int]:
    entry = manifest.splits[split].sources
    if entry is None:
        return {}
    if manifest.kind != "frames":
        return {"sources": entry.lines}
    speakers = {line.split()[1] for line in read_lines(folder, entry)}
    return {"utterances": entry.lines, "speakers": len(speakers)}


def _classes(folder: Path, manifest: Manifest) -> dict[str, Any]:
    names = class_names(folder, manifest)
    counts = np.asarray(manifest.class_counts, np.int64)
    order = np.argsort(-counts, kind="stable")
    seen = order[: np.count_nonzero(counts)]
    shares = counts[seen] / counts.sum()

    def listed(classes: np.ndarray) -> list[dict[str, Any]]:
        return [{"class": names[i], "count": int(counts[i])} for i in classes.tolist()]

    return {
        "classes": manifest.classes,
        "classes_seen": len(seen),
        "labels": int(counts.sum()),
        "entropy_nats": float(-(shares * np.log(shares)).sum()),
        "most_frequent": listed(seen[:_EXTREMES]),
        "least_frequent": listed(seen[_EXTREMES:][-_EXTREMES:]),
    }


def _text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['path']}: {facts['kind']}"]
    for name, split in facts["splits"].items():
        parts = [
            f"{split['samples']:>12,} samples in {_many(split['shards'], 'shard')}",
            f"{split['bytes'] / 1e9:,.3f} GB",
            *(
                _many(split[key], key[:-1])
                for key in ("utterances", "speakers", "sources")
                if key in split
            ),
        ]
        lines.append(f"  {name:<10}{', '.join(parts)}")
    lines.append(f"fingerprint {facts['fingerprint']}")
    lines.append("fields of a sample")
    for name, field in facts["fields"].items():
        shape = " x ".join(map(str, field["shape"])) or "one"
        lines.append(f"  {name:<10}{shape} {field['dtype']}, {field['bytes']:,} bytes")
    total = facts["labels"]
    lines.append(
        f"{facts['classes']:,} classes, {facts['classes_seen']:,} of them among the "
        f"{total:,} labels of the training split; entropy {facts['entropy_nats']:.3f} nats"
    )
    for key, label in (("most_frequent", "most frequent"), ("least_frequent", "least, seen")):
        if facts[key]:
            shown = [f"{e['class']} ({_percent(e['count'] / total)})" for e in facts[key]]
            lines.append(f"  {label:<15}{', '.join(shown)}")
    for title in ("counts", "provenance"):
        lines.append(title)
        lines += [f"  {key:<18}{_plain(value)}" for key, value in facts[title].items()]
    if facts["skipped"]:
        lines.append(f"skipped: {facts['skipped']:,}, listed with the reasons in the set's folder")
    return "\n".join(lines)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(part)}" for key, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:,}" if type(value) is int else str(value)
