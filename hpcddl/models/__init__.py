"""Networks, one file per family: functions of (features, classes) to a module."""

from collections.abc import Callable

from torch import nn

from hpcddl.models.bilstm import bilstm
from hpcddl.models.logistic import logistic_regression
from hpcddl.models.resnet import resnet20

MODELS: dict[str, Callable[..., nn.Module]] = {
    "bilstm": bilstm,
    "logistic_regression": logistic_regression,
    "resnet20": resnet20,
}
