"""The start of paper B's image networks (app. A.2, after Goyal et al. 2017, sec. 5.1)."""

from torch import nn


def start_as_paper_b(model: nn.Module) -> nn.Module:
    """Draws convolutions from N(0, 2 / fan in) (He et al. 2015), linear layers from N(0, 0.01^2).

    In place. Linear layers' biases start at 0, batch norm as the identity.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    return model
