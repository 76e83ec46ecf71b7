"""Every network: its size is the papers', it has a score for each class, and all of it learns."""

import pytest
import torch
from torch import nn

from hpcddl.models import MODELS
from hpcddl.models.reference import REFERENCES
from hpcddl.models.senet import SqueezeExcitation
from hpcddl.training.evaluate import classification_loss

COUNTS = {
    "bilstm": 43_154_944,
    "densenet121": 6_956_298,
    "densenet40_12": 1_019_722,
    "efficientnet_b0": 2_912_089,
    "googlenet": 6_166_250,
    "logistic_regression": 300,
    "lstm_lm": 31_819_578,
    "mlp": 42_310,
    "mobilenet": 3_217_226,
    "mobilenet_v2": 2_296_922,
    "resnet18": 11_173_962,
    "resnet20": 269_722,
    "resnet50": 25_557_032,
    "resnext29": 9_128_778,
    "senet18": 11_260_354,
    "shufflenet_v2": 1_263_854,
    "vgg19": 20_040_522,
    "wide_resnet28_10": 36_479_194,
}


@pytest.mark.parametrize("name", MODELS)
def test_sizes_are_exact(name: str) -> None:
    """The papers' networks to the last weight; paper A table 1 has them in hundredths of a MiB."""
    reference = REFERENCES[name]
    with torch.device("meta"):
        model = MODELS[name](reference.shape, reference.classes)
    count = sum(p.numel() for p in model.parameters())
    assert count == COUNTS[name]
    if reference.paper_mib is not None:
        assert abs(4 * count / 2**20 - reference.paper_mib) < 0.01


@pytest.mark.parametrize("name", MODELS)
def test_every_class_has_a_score_and_every_weight_a_gradient(name: str) -> None:
    """In training and in evaluation, for another number of classes than the papers'."""
    torch.manual_seed(0)
    reference, classes = REFERENCES[name], 7
    model = MODELS[name](reference.shape, classes)
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):
            nn.init.constant_(module[1].bias, 10.0)  # A ReLU of few units may start closed.
    highest = 256 if reference.dtype.is_floating_point else classes
    samples = torch.randint(highest, (2, *reference.shape)).to(reference.dtype)
    scored = (2, *reference.shape[:1]) if name in ("bilstm", "lstm_lm") else (2,)

    scores = model(samples)
    assert scores.shape == (*scored, classes)
    classification_loss(scores, torch.randint(classes, scored)).backward()
    still = [p for p, w in model.named_parameters() if w.grad is None or not w.grad.any()]
    assert not still

    with torch.no_grad():
        assert model.eval()(samples).shape == (*scored, classes)
