"""Networks, one file per family: functions of (shape, classes) to a module."""

from collections.abc import Callable
from functools import partial

from torch import nn

from hpcddl.common.options import Table
from hpcddl.common.own_entries import with_given
from hpcddl.models.bilstm import bilstm
from hpcddl.models.densenet import densenet40_12, densenet121
from hpcddl.models.efficientnet import efficientnet_b0
from hpcddl.models.googlenet import googlenet
from hpcddl.models.logistic import logistic_regression
from hpcddl.models.lstm_lm import lstm_lm
from hpcddl.models.mlp import mlp
from hpcddl.models.mobilenet import mobilenet, mobilenet_v2
from hpcddl.models.resnet import resnet18, resnet20, resnet50
from hpcddl.models.resnext import resnext29
from hpcddl.models.senet import senet18
from hpcddl.models.shufflenet import shufflenet_v2
from hpcddl.models.vgg import vgg19
from hpcddl.models.wide_resnet import wide_resnet28_10

_ENTRIES: dict[str, Callable[..., nn.Module]] = {
    "bilstm": bilstm,
    "densenet121": densenet121,
    "densenet40_12": densenet40_12,
    "efficientnet_b0": efficientnet_b0,
    "googlenet": googlenet,
    "logistic_regression": logistic_regression,
    "lstm_lm": lstm_lm,
    "mlp": mlp,
    "mobilenet": mobilenet,
    "mobilenet_v2": mobilenet_v2,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet50": resnet50,
    "resnext29": resnext29,
    "senet18": senet18,
    "shufflenet_v2": shufflenet_v2,
    "vgg19": vgg19,
    "wide_resnet28_10": wide_resnet28_10,
}

MODELS = Table(_ENTRIES, own=partial(with_given, given=("shape", "classes")))
