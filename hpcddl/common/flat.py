"""A model's trainable weights as one vector (d,)."""

import torch
from torch import Tensor, nn

from hpcddl.common.errors import UserError


class FlatWeights:
    """Copies between a model's parameters and vectors of shape (d,).

    The parameters keep their own storage: cuDNN's LSTM and Horovod both break when parameters
    or gradients alias one flat buffer, so a vector costs one pass over memory. Complex parameters
    are a UserError: a vector of reals would lose half of them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        if any(p.is_complex() for p in self.parameters):
            raise UserError("model: has complex weights; must have real ones")
        self.sizes = [p.numel() for p in self.parameters]
        self.size = sum(self.sizes)  # d
        self.dtype = self.parameters[0].dtype
        self.device = self.parameters[0].device

    def empty(self, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised vector (d,) beside the parameters, of their type unless told."""
        return torch.empty(self.size, dtype=dtype or self.dtype, device=self.device)

    def views(self, vector: Tensor) -> list[Tensor]:
        """The pieces of `vector` (d,), each in its parameter's shape, without a copy."""
        pieces = vector.split(self.sizes)
        return [piece.view(p.shape) for piece, p in zip(pieces, self.parameters, strict=True)]

    @torch.no_grad()
    def read(self, out: Tensor) -> Tensor:
        """out (d,) <- the weights, rounded to its type; returns it."""
        torch._foreach_copy_(self.views(out), self.parameters)
        return out

    @torch.no_grad()
    def write(self, vector: Tensor, divisor: int = 1) -> None:
        """The weights <- vector (d,) / divisor, in one pass."""
        if divisor == 1:
            torch._foreach_copy_(self.parameters, self.views(vector))
            return
        for parameter, piece in zip(self.parameters, self.views(vector), strict=True):
            torch.div(piece, divisor, out=parameter)
