"""Networks whose loss is known in closed form, as what a run directory would give."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcddl.cluster.world import World
from hpcddl.common.options import Choice
from hpcddl.run.trained import Trained


class Quadratic(nn.Module):
    """Its cross-entropy is q(w) = 1 + sum_k h_k w_k^2 / 2, whatever the samples of class 0."""

    def __init__(self) -> None:
        super().__init__()
        drawn = torch.Generator().manual_seed(1)
        self.filters = nn.Parameter(torch.randn(3, 2, generator=drawn, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(3, generator=drawn, dtype=torch.float64))
        self.h = torch.rand(9, generator=drawn, dtype=torch.float64)

    def q(self, w: Tensor) -> Tensor:
        return 1 + (self.h * w**2).sum() / 2

    def forward(self, features: Tensor) -> Tensor:
        """Scores (0, ln(e^q - 1)), so that ln sum exp = q."""
        w = torch.cat([self.filters.flatten(), self.bias])
        other = torch.log(torch.expm1(self.q(w))).expand(len(features))
        return torch.stack([torch.zeros_like(other), other], dim=-1)


class InMemory:
    """Samples (N, ...) with labels (N,), as a data set."""

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.features)

    def buffers(self, batch: int, pin_memory: bool = False) -> tuple[Tensor, Tensor]:
        return torch.empty_like(self.features[:batch]), torch.empty_like(self.labels[:batch])

    def gather(self, indices: NDArray, features_out: Tensor, labels_out: Tensor) -> None:
        chosen = torch.from_numpy(indices.astype(np.int64))
        features_out[:], labels_out[:] = self.features[chosen], self.labels[chosen]


def of_class_zero(samples: int = 7) -> InMemory:
    return InMemory(torch.zeros(samples, 1), torch.zeros(samples, dtype=torch.int64))


def trained_of(model: nn.Module, data: InMemory, world: World, batch: int = 4) -> Trained:
    """What `load_trained` would return, of a run of one learner."""
    config: Any = SimpleNamespace(
        seed=0,
        global_batch=batch,
        accumulate=1,
        model=SimpleNamespace(name="known"),
        strategy=SimpleNamespace(name="dpsgd"),
        batch_norm=Choice("averaged", {}),
        data=SimpleNamespace(options={"path": "shards", "fingerprint": "0" * 32}),
    )
    found: Any = SimpleNamespace(
        learners=1, position=SimpleNamespace(epoch=1, steps=2), files={"learner-00000.pt": "sha"}
    )
    source: Any = data
    return Trained(config, found, model.eval(), model, source, source, world)


def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("seed: 1\n")
    return folder
