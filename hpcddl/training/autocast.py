"""Mixed precision: matrix products in 16 bits, everything that is stored in 32."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class Autocast(nn.Module):
    """`model` with its matrix products and convolutions in `dtype`; its scores are float32.

    Weights, their gradients and batch-norm statistics stay float32 (Micikevicius et al. 2018);
    which operations run in `dtype` is torch.autocast's own list.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.device_type = next(model.parameters()).device.type
        lstm = any(isinstance(module, nn.LSTM) for module in model.modules())
        self.onednn = not lstm or self.device_type != "cpu" or _onednn_has_lstm(dtype)

    def forward(self, features: Tensor) -> Tensor:
        """Scores (B, ..., C) as float32."""
        kernels = nullcontext() if self.onednn else _without_onednn()
        with kernels, torch.autocast(self.device_type, self.dtype):
            scores: Tensor = self.model(features)
        return scores.float()


def _onednn_has_lstm(dtype: torch.dtype) -> bool:
    """Whether oneDNN, which torch asks for an LSTM on a CPU, has one in `dtype` for this CPU."""
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", dtype):
        try:
            states, _ = nn.LSTM(1, 1)(torch.zeros(1, 1, 1))
            states.sum().backward()
        except RuntimeError:
            return False
    return True


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Inside, torch's own kernels are used: an LSTM is then products in 16 bits, states in 32."""
    # torch.backends.mkldnn.flags would also set, and warn of, what only other devices know.
    onednn: Any = torch.backends.mkldnn
    before, onednn.enabled = onednn.enabled, False
    try:
        yield
    finally:
        onednn.enabled = before
