"""Networks, one file per family: functions of (features, classes) to a module."""

from hpcddl.models.bilstm import bilstm

MODELS = {"bilstm": bilstm}
