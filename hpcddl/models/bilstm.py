"""The bi-directional LSTM acoustic model (paper A sec. 3 and table 1)."""

from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from hpcddl.common.errors import UserError


class BiLSTM(nn.Module):
    """Windows of features (B, T, D) to scores of every frame's class (B, T, C)."""

    def __init__(
        self,
        features: int,
        classes: int,
        layers: int,
        cells: int,
        bottleneck: int,
        dropout: float,
    ) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0  # nn.LSTM has it between layers only
        self.lstm = nn.LSTM(
            features, cells, layers, batch_first=True, bidirectional=True, dropout=between
        )
        self.dropout = nn.Dropout(dropout)
        self.bottleneck = nn.Linear(2 * cells, bottleneck)
        self.output = nn.Linear(bottleneck, classes)

    def forward(self, windows: Tensor) -> Tensor:
        states, _ = self.lstm(windows)
        scores: Tensor = self.output(self.bottleneck(self.dropout(states)))
        return scores


def bilstm(
    shape: tuple[int, ...],
    classes: int,
    *,
    layers: PositiveInt = 6,
    cells: PositiveInt = 512,
    bottleneck: PositiveInt = 256,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> nn.Module:
    """The paper's by default: 43,154,944 weights for 260 features and 32,000 classes.

    `shape` is a sample's (T, D). `dropout` acts between the LSTM's layers and before the
    bottleneck; the paper names none. Raises UserError for samples that are no windows of frames.
    """
    if len(shape) != 2:
        raise UserError(f"model bilstm: takes windows of frames, the data has samples of {shape}")
    return BiLSTM(shape[1], classes, layers, cells, bottleneck, dropout)
