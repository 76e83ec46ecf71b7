"""The table of the commands of `hpcddl`, and the call of one of them."""

import argparse
import importlib
from collections.abc import Sequence
from typing import NoReturn

from hpcddl.common.errors import UserError

# words -> (module with add_arguments and run, one line for --help)
COMMANDS = {
    "doctor": (
        "hpcddl.doctor.doctor",
        "check the installation and the launch; say how to fix faults",
    ),
    "train": ("hpcddl.commands.train", "train a network, on all ranks that mpirun or srun starts"),
    "evaluate": (
        "data_prep.kaldi.evaluate",
        "compute a run's held-out loss, or its scores for Kaldi",
    ),
    "export": (
        "hpcddl.commands.export",
        "save the network of a run as safetensors or as a torch program",
    ),
    "recipes": (
        "hpcddl.commands.recipes",
        "list the papers' tables and the packaged recipes, or show one",
    ),
    "models": ("hpcddl.commands.models", "list the networks with their sizes, or show one in full"),
    "sweep": ("hpcddl.sweeps.sweep", "list families of runs, or train one or all of their runs"),
    "submit": ("hpcddl.submit.submit", "submit a recipe, a sweep, prep or report to Slurm"),
    "jobs": ("hpcddl.submit.jobs", "list submitted jobs: state, progress, output"),
    "tune": ("hpcddl.tune.tune", "search a recipe's best rate, noise or other number"),
    "compare": ("hpcddl.report.compare", "compare several runs in one table and one picture"),
    "report": ("hpcddl.report.report", "write one page about several runs, to read and to print"),
    "analyze curvature": (
        "hpcddl.analysis.curvature",
        "compute eigenvalues of the Hessian at trained networks",
    ),
    "analyze landscape": ("hpcddl.analysis.landscape", "draw the loss around trained networks"),
    "analyze interpolate": (
        "hpcddl.analysis.interpolate",
        "draw the loss on the line between two trained networks",
    ),
    "prep kaldi": ("data_prep.kaldi.kaldi", "pack a Kaldi experiment into HDF5 shards"),
    "prep mini-corpus": ("data_prep.mini_corpus", "generate a small corpus in Kaldi's format"),
    "prep cifar": ("data_prep.cifar", "pack CIFAR-10 or CIFAR-100"),
    "prep mnist": ("data_prep.mnist", "pack MNIST or Fashion-MNIST"),
    "prep digits": ("data_prep.digits", "pack the 1,797 digits that come with scikit-learn"),
    "prep wikitext": ("data_prep.wikitext", "pack WikiText-2, or other text, word by word"),
    "prep libsvm": ("data_prep.libsvm", "pack LIBSVM files as dense vectors"),
    "prep images": ("data_prep.images", "pack folders of images, such as ImageNet"),
    "data info": ("hpcddl.inspect.info", "say what a shard set holds"),
    "data verify": ("hpcddl.inspect.verify", "compare every byte of a shard set with its manifest"),
    "data show": ("hpcddl.inspect.show", "draw samples of a shard set, and its class frequencies"),
    "reproduce fig2a": ("hpcddl.reproduce.fig2a", "DPSGD at a high rate (paper A fig. 2a)"),
    "reproduce fig2b": ("hpcddl.reproduce.fig2b", "DPSGD's test error (paper A fig. 2b)"),
    "reproduce table4-mini": (
        "hpcddl.reproduce.table4_mini",
        "where SSGD diverges (paper A table 4)",
    ),
    "reproduce b-fig6": ("hpcddl.reproduce.b_fig6", "local SGD on w8a (paper B fig. 6)"),
    "reproduce saddle": ("hpcddl.reproduce.saddle", "leaving a saddle point (paper A app. E)"),
    "bench comm": ("hpcddl.bench.comm", "speed of the weight exchange (under mpirun -np 2)"),
    "bench strategies": ("hpcddl.bench.strategies", "what agreeing costs, beside torch's own ways"),
    "bench network": ("hpcddl.bench.network", "each strategy's step on emulated slow networks"),
    "bench prep": ("data_prep.kaldi.bench_prep", "speed of packing, beside Kaldi's own reader"),
    "bench model": ("hpcddl.bench.model", "FLOPs per sample and parameter; time by batch size"),
    "bench networks": ("hpcddl.bench.networks", "a step of each CIFAR network, beside plain torch"),
    "bench analysis": ("hpcddl.bench.analysis", "what curvature and diagnostics cost"),
    "bench loader": ("hpcddl.bench.loader", "speed of reading shards in random order"),
    "bench shuffle": ("hpcddl.bench.shuffle", "how well the block shuffle mixes a shard set"),
}


def call(name: str, words: Sequence[str]) -> int:
    """Imports only the command `name` and runs it; returns its exit status.

    Raises:
        UserError: the words are not valid for it, or the command raises it.
    """
    module = importlib.import_module(COMMANDS[name][0])
    parser = _Parser(prog=f"hpcddl {name}", formatter_class=_Help)
    module.add_arguments(parser)
    # Intermixed: key=value may stand behind an option too.
    status: int = module.run(parser.parse_intermixed_args(words))
    return status


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names a default where there is one: not None, not of a switch, and not twice."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        if action.default in (None, False, [], ()) or "default" in text:
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises its errors as UserError: one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")
