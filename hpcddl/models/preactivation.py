"""The residual block that normalises first (He et al. 2016b, Identity Mappings, fig. 4e)."""

from torch import Tensor, nn
from torch.nn.functional import relu


class PreActivation(nn.Module):
    """x' + gate(conv(relu(bn(conv(a))))) with a = relu(bn(x)).

    x' is x, or conv 1x1(a) if its shape changes; `gate` is the identity unless given.
    """

    def __init__(
        self, channels: int, width: int, stride: int, gate: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            *([] if gate is None else [gate]),
        )
        same = channels == width and stride == 1
        self.shortcut = None if same else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.norm(x))
        kept: Tensor = x if self.shortcut is None else self.shortcut(active)
        return kept + self.body(active)
