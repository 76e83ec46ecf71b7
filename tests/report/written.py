"""Run directories as training leaves them, written by hand."""

import json
from pathlib import Path
from typing import Any

import yaml


def write_run(folder: Path, losses: list[float | None], **changes: Any) -> Path:
    """A run directory as training leaves it, with these held-out losses."""
    folder.mkdir()
    config = {
        "global_batch": 512,
        "model": {"name": "bilstm"},
        "strategy": {"name": "dpsgd", "topology": {"name": "ring", "neighbours": 1}},
        "weight_noise": {"std": 0.0},
    }
    seconds = {"load": 1.0, "forward_backward": 8.0, "evaluate": 100.0, "checkpoint": 50.0}
    records = [
        {
            "kind": "evaluation",
            "time": 1000.0 + 10 * i,
            "epoch": i + 1,
            "heldout_loss": loss,
            "heldout_accuracy": 0.1 * (i + 1),
            "samples": 512 * 10 * (i + 1),
            "step": 10 * (i + 1),
            "rounds": 5 * (i + 1),
            "bytes_sent": (i + 1) << 20,
            "seconds": {name: value * (i + 1) for name, value in seconds.items()},
        }
        for i, loss in enumerate(losses)
    ]
    summary = {
        "learners": 4,
        "heldout_loss": losses[-1],
        "best_heldout_loss": min(x for x in losses if x is not None),
        "heldout_accuracy": 0.25,
        "prior_loss": 4.5,
        "prior_accuracy": 0.05,
        "classes": 96,
        "diverged": losses[-1] is None,
        "diverged_since": {"epoch": 2} if losses[-1] is None else None,
        "bytes_sent": 3 << 20,
        "seconds": seconds,
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
