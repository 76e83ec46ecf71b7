"""The LSTM language model (paper B app. C.5, after Merity et al. 2018)."""

from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from hpcddl.common.errors import UserError
from hpcddl.models.hidden_state import Carried


class LSTMLanguageModel(nn.Module):
    """Windows of words (B, T) to scores of every word's successor (B, T, C)."""

    def __init__(self, words: int, layers: int, cells: int, dropout: float, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, cells)
        self.lstm = Carried(nn.LSTM(cells, cells, layers, batch_first=True))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(cells, words)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.output.bias)
        if tied:
            self.output.weight = self.embedding.weight
        else:
            nn.init.normal_(self.output.weight, std=0.01)

    def forward(self, windows: Tensor) -> Tensor:
        scores: Tensor = self.output(self.dropout(self.lstm(self.embedding(windows))))
        return scores


def lstm_lm(
    shape: tuple[int, ...],
    classes: int,
    *,
    layers: PositiveInt = 3,
    cells: PositiveInt = 650,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4,
    tied: bool = True,
) -> nn.Module:
    """The paper's by default: 31,819,578 weights for WikiText-2's 33,278 words.

    The paper names layers, cells, and dropout "only on the output of LSTM". Merity et al. (2018),
    whose setup it adapts, tie the embedding to the output layer and draw it from U(-0.1, 0.1); an
    output layer of its own (`tied` false) starts from N(0, 0.01^2) (paper B app. A.2). The LSTM
    starts as torch's, which is theirs: U(-1, 1) / sqrt(cells).

    `shape` is a window's (T,). Raises UserError for samples that are no windows of words.
    """
    if len(shape) != 1:
        raise UserError(f"model lstm_lm: takes windows of words, the data has samples of {shape}")
    return LSTMLanguageModel(classes, layers, cells, dropout, tied)
