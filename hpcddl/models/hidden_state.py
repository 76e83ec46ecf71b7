"""What a recurrent network carries from one window of its streams to the next (paper B app. C.5).

A state belongs to the streams of one learner. It is neither a weight nor a statistic: no strategy
averages it. It is detached, so that gradients go back to the start of the window.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

State = tuple[Tensor, Tensor]
"""h and c, (layers, B, H)."""


class Carried(nn.Module):
    """`lstm` from windows (B, T, D) to (B, T, H), each going on where the last one ended.

    `states` are those of each group of streams, None for zeros; the groups' windows come in turn.
    Where it is None itself nothing is carried, and every window starts from zeros.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm
        self.states: deque[State | None] | None = None

    def forward(self, windows: Tensor) -> Tensor:
        if self.states is None:
            outputs, _ = self.lstm(windows)
            return outputs
        before = self.states.popleft()
        if before is not None:
            # Streams that have ended were the last rows.
            h, c = (state[:, : len(windows)].contiguous() for state in before)
            before = h, c
        outputs, (h, c) = self.lstm(windows, before)
        self.states.append((h.detach(), c.detach()))
        return outputs


def carry(model: nn.Module, groups: int) -> None:
    """From here on `model` carries states, at first zeros, of `groups` groups of streams."""
    for layer in _layers(model):
        layer.states = deque([None] * groups)


def reset(model: nn.Module) -> None:
    """Zeros in the place of all states that `model` carries: its streams have ended."""
    for layer in _layers(model):
        if layer.states is not None:
            layer.states = deque([None] * len(layer.states))


@contextmanager
def aside(model: nn.Module, contiguous: bool) -> Iterator[None]:
    """Inside, `model` starts from zeros and carries where windows are `contiguous`.

    Outside, it goes on where it was before.
    """
    layers = _layers(model)
    before = [layer.states for layer in layers]
    for layer in layers:
        layer.states = deque([None]) if contiguous else None
    try:
        yield
    finally:
        for layer, states in zip(layers, before, strict=True):
            layer.states = states


def state_list(model: nn.Module) -> list[list[State | None] | None]:
    """All that `model` carries, for `load_state_list`."""
    return [None if layer.states is None else list(layer.states) for layer in _layers(model)]


def load_state_list(model: nn.Module, saved: Sequence[Sequence[State | None] | None]) -> None:
    """Goes on from what `state_list` of the same network returned, on the weights' device."""
    device = next(model.parameters()).device
    for layer, states in zip(_layers(model), saved, strict=True):
        if states is None:
            layer.states = None
            continue
        layer.states = deque(
            state and (state[0].to(device), state[1].to(device)) for state in states
        )


def _layers(model: nn.Module) -> list[Carried]:
    return [module for module in model.modules() if isinstance(module, Carried)]
