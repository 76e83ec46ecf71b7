"""Networks have exactly the papers' sizes."""

import pytest
import torch
from torch import nn

from hpcddl.common.errors import UserError
from hpcddl.models.bilstm import bilstm
from hpcddl.models.logistic import logistic_regression
from hpcddl.models.mlp import mlp
from hpcddl.models.resnet import Block, resnet20
from hpcddl.optimizers.groups import parameter_groups
from hpcddl.training.evaluate import classification_loss


def test_bilstm_is_the_papers() -> None:
    """Paper A table 1: 164.62 MiB = 43,154,944 weights; a score for every frame and class."""
    with torch.device("meta"):
        model = bilstm((21, 260), 32000)
    count = sum(p.numel() for p in model.parameters())
    assert count == 43_154_944
    assert round(4 * count / 2**20, 2) == 164.62
    assert bilstm((21, 6), 10, layers=2, cells=4, bottleneck=3)(torch.zeros(2, 21, 6)).shape == (
        2,
        21,
        10,
    )


def test_batch_norm_never_decays() -> None:
    """Paper B app. A.4; every trainable weight is in exactly one group."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    decaying, exempt = parameter_groups(model, 0.1)
    assert [p.shape for p in decaying["params"]] == [(4, 3), (4,)]
    assert [p.shape for p in exempt["params"]] == [(4,), (4,)]
    assert (decaying["weight_decay"], exempt["weight_decay"]) == (0.1, 0.0)


def test_resnet20_is_he_et_als() -> None:
    """0.27 M weights: 269,722 for CIFAR-10; a score for every class, for squares of any size."""
    model = resnet20((3, 32, 32), 10)
    assert sum(p.numel() for p in model.parameters()) == 269_722
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 1 == 20
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    for size in (4, 7, 8):
        grey = resnet20((1, size, size), 5, mean=(128.0,), std=(64.0,))
        assert grey(torch.zeros(2, 1, size, size)).shape == (2, 5)


def test_shortcuts_have_no_weights() -> None:
    """He et al. 2016, option A: every second pixel, and channels of zeros after those there are."""
    block = Block(16, 32, 2)
    nn.init.zeros_(block.norm2.weight)  # what is left is the shortcut
    x = torch.rand(2, 16, 6, 6)
    out = block(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()


def test_pixels_are_normalised_by_channel() -> None:
    """Paper B app. A.1: with the channels' means and standard deviations."""
    torch.manual_seed(0)
    model = resnet20((2, 8, 8), 3, mean=(10.0, 20.0), std=(2.0, 4.0)).eval()
    plain = resnet20((2, 8, 8), 3, mean=(0.0, 0.0), std=(1.0, 1.0)).eval()
    plain.load_state_dict(model.state_dict())
    x = torch.randn(2, 2, 8, 8)
    pixels = x * torch.tensor([2.0, 4.0])[:, None, None] + torch.tensor([10.0, 20.0])[:, None, None]
    torch.testing.assert_close(model(pixels), plain(x))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((21, 40), "square images of at least 4 x 4"),
        ((3, 32, 24), "square images"),
        ((3, 2, 2), "at least 4 x 4"),
        ((1, 8, 8), r"model.mean=\[125.3, 123.0, 113.9\]: takes one number for each of 1 channels"),
    ],
)
def test_resnet20_refuses_what_it_cannot_take(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        resnet20(shape, 10)


def test_logistic_regression_has_one_weight_per_feature() -> None:
    """Paper B app. B.2: 300 for w8a, 0 at the start, where every class is as likely."""
    model = logistic_regression((300,), 2)
    assert sum(p.numel() for p in model.parameters()) == 300
    assert not model(torch.ones(4, 300)).any()
    assert logistic_regression((7,), 3)(torch.ones(4, 7)).shape == (4, 3)


def test_logistic_regressions_gradient_is_the_textbooks() -> None:
    """Of mean log(1 + exp(-y x.w)): mean_i -y_i x_i / (1 + exp(y_i x_i.w)), the loop's own loss."""
    model = logistic_regression((5,), 2).double()
    (weight,) = model.parameters()
    torch.manual_seed(0)
    nn.init.normal_(weight)
    x, labels = torch.randn(20, 5, dtype=torch.float64), torch.randint(0, 2, (20,))
    y, w = 2.0 * labels - 1, weight.detach()[0]
    loss = classification_loss(model(x), labels)
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.log1p(torch.exp(-y * (x @ w))).mean())
    expected = (-y / (1 + torch.exp(y * (x @ w))))[:, None] * x
    torch.testing.assert_close(weight.grad, expected.mean(0, keepdim=True))


@pytest.mark.parametrize(("shape", "classes"), [((21, 260), 2), ((300,), 1)])
def test_logistic_regression_takes_vectors_of_two_classes_or_more(shape, classes: int) -> None:
    with pytest.raises(UserError, match="model logistic_regression: "):
        logistic_regression(shape, classes)


def test_mlp_is_paper_as() -> None:
    """784-50-50-10: 784*50 + 50 + 50*50 + 50 + 50*10 + 10 weights; pixels count from 0 to 1."""
    torch.manual_seed(0)
    model = mlp((1, 28, 28), 10)
    assert sum(p.numel() for p in model.parameters()) == 42_310
    pixels = torch.randint(0, 256, (3, 1, 28, 28)).float()
    first, second, last = (m for m in model.modules() if isinstance(m, nn.Linear))
    expected = last(second(first(pixels.flatten(1) / 255).relu()).relu())
    torch.testing.assert_close(model(pixels), expected)


def test_mlp_takes_samples_of_any_shape() -> None:
    """Vectors as they are; `scale` is the caller's where it is given."""
    torch.manual_seed(0)
    model, x = mlp((6,), 3, hidden=[4]), torch.randn(5, 6)
    scaled = mlp((2, 3), 3, hidden=[4], scale=0.5)
    scaled.load_state_dict(model.state_dict())
    assert model(x).shape == (5, 3)
    torch.testing.assert_close(scaled(2 * x.view(5, 2, 3)), model(x))
