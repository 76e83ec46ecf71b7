"""Which weights decay."""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: all that decays, and the batch-norm parameters, which never do (B app. A.4)."""
    norms = [m for m in model.modules() if isinstance(m, _NormBase)]
    exempt = {id(p) for m in norms for p in m.parameters(recurse=False)}
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if id(p) not in exempt], "weight_decay": weight_decay},
        {"params": [p for p in trainable if id(p) in exempt], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
