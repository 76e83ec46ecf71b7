"""The command `hpcddl`: finds the subcommand, imports only what it needs, sets the exit status."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from hpcddl.cluster import mpi_start
from hpcddl.cluster.launcher import promised_rank
from hpcddl.common.errors import UserError

# words -> (module with add_arguments and run, one line for --help)
COMMANDS = {
    "doctor": ("hpcddl.doctor.command", "what is installed and how it fits; what mends it"),
    "train": ("hpcddl.commands.train", "train a network on all ranks of the launcher"),
    "evaluate": ("data_prep.kaldi.posteriors", "held-out loss, or Kaldi posteriors, of a run"),
    "export": (
        "hpcddl.commands.export",
        "the network of a run as safetensors, or as a torch program",
    ),
    "recipes": ("hpcddl.commands.recipes", "list the packaged recipes, or show one in full"),
    "models": ("hpcddl.commands.models", "list the networks with their sizes, or show one in full"),
    "sweep": ("hpcddl.sweeps.command", "families of runs: list them, or train one or all"),
    "submit": ("hpcddl.submit.command", "submit a recipe, a sweep, prep or report to Slurm"),
    "jobs": ("hpcddl.submit.jobs_command", "the submitted jobs: state, progress, output"),
    "tune": ("hpcddl.tune.command", "search a recipe's best rate, noise or other number"),
    "compare": ("hpcddl.report.compare", "one table and one picture of several runs"),
    "report": ("hpcddl.report.command", "one page of several runs, to read and to print"),
    "analyze curvature": ("hpcddl.analysis.curvature_command", "the Hessian's eigenvalues of runs"),
    "analyze landscape": ("hpcddl.analysis.landscape_command", "loss around the consensus of runs"),
    "analyze interpolate": ("hpcddl.analysis.interpolate_command", "loss between two runs"),
    "prep kaldi": ("data_prep.kaldi.command", "pack a Kaldi experiment into HDF5 shards"),
    "prep mini-corpus": ("data_prep.mini_corpus", "generate a small corpus in Kaldi's format"),
    "prep cifar": ("data_prep.cifar", "pack CIFAR-10 or CIFAR-100"),
    "prep mnist": ("data_prep.mnist", "pack MNIST or Fashion-MNIST"),
    "prep digits": ("data_prep.digits", "pack the 1,797 digits that come with scikit-learn"),
    "prep wikitext": ("data_prep.wikitext", "pack WikiText-2, or other text, word by word"),
    "prep libsvm": ("data_prep.libsvm", "pack LIBSVM files as dense vectors"),
    "prep images": ("data_prep.images", "pack folders of images, as ImageNet's"),
    "data info": ("hpcddl.inspect.info", "what a shard set holds"),
    "data verify": ("hpcddl.inspect.verify", "compare every byte of a shard set with its manifest"),
    "data show": ("hpcddl.inspect.show", "draw samples of a shard set and how often classes occur"),
    "reproduce fig2a": ("hpcddl.reproduce.fig2a", "DPSGD at a high rate (paper A fig. 2a)"),
    "reproduce fig2b": ("hpcddl.reproduce.fig2b", "DPSGD's test error (paper A fig. 2b)"),
    "reproduce table4-mini": ("hpcddl.reproduce.table4", "where SSGD diverges (paper A table 4)"),
    "reproduce b-fig6": ("hpcddl.reproduce.b_fig6", "local SGD on w8a (paper B fig. 6)"),
    "reproduce saddle": ("hpcddl.reproduce.saddle", "leaving a saddle point (paper A app. E)"),
    "bench comm": ("hpcddl.bench.comm", "speed of the weight exchange (under mpirun -np 2)"),
    "bench strategies": ("hpcddl.bench.strategies", "what agreeing costs, beside torch's own ways"),
    "bench network": ("hpcddl.bench.network", "each strategy's step on emulated slow networks"),
    "bench prep": ("data_prep.kaldi.bench", "speed of packing, beside Kaldi's own reader"),
    "bench model": ("hpcddl.bench.model", "FLOPs per sample and parameter; time by batch size"),
    "bench networks": ("hpcddl.bench.networks", "a step of each CIFAR network, beside plain torch"),
    "bench analysis": ("hpcddl.bench.analysis", "what curvature and diagnostics cost"),
    "bench loader": ("hpcddl.bench.loader", "speed of reading shards in random order"),
    "bench shuffle": ("hpcddl.bench.shuffle", "how well the block shuffle mixes a shard set"),
}


def main(words: Sequence[str] | None = None) -> int:
    """Runs one subcommand: 0 done, 2 the input was wrong (one line says how), 1 anything else."""
    words = list(sys.argv[1:] if words is None else words)
    name = next((n for n in (" ".join(words[:2]), *words[:1]) if n in COMMANDS), None)
    if name is None:
        return _help(words)
    mpi_start.prepare(os.environ)
    try:
        module = importlib.import_module(COMMANDS[name][0])
        parser = _Parser(
            prog=f"hpcddl {name}", formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        module.add_arguments(parser)
        # Intermixed: key=value may stand behind an option too.
        arguments = parser.parse_intermixed_args(words[len(name.split()) :])
        status: int = module.run(arguments)
    except UserError as error:
        if _rank(error) == 0:
            print(f"hpcddl: error: {error}", file=sys.stderr, flush=True)
        return 2
    except BrokenPipeError:
        if "mpi4py.MPI" in sys.modules:
            _abort_at_exit()
            raise
        # Whoever read the output, as `head` does, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:
        _abort_at_exit()
        raise
    return status


def _help(words: Sequence[str]) -> int:
    """The list of commands; status 2 unless it was asked for."""
    if words[:1] == ["--version"]:
        from hpcddl import __version__

        print(f"hpcddl {__version__}")
        return 0
    asked = not words or words[-1] in ("-h", "--help", "help")
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    text = "usage: hpcddl COMMAND ...\n\n" + "\n".join(lines)
    text += "\n\n`hpcddl COMMAND --help` answers with an example."
    if not asked:
        unknown = " ".join(words[:2])
        text = f"hpcddl: error: command {unknown!r}: must be one of {', '.join(COMMANDS)}"
    print(text, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _abort_at_exit() -> None:
    """A rank that fails outside a World (an import that breaks on one node) must end the job too.

    Left to itself it would wait in MPI_Finalize for ranks that wait for it.
    """
    if "mpi4py.MPI" in sys.modules and {"PMIX_RANK", "OMPI_COMM_WORLD_RANK"} & os.environ.keys():
        from mpi4py.run import set_abort_status

        set_abort_status(1)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def _rank(error: UserError) -> int:
    """The rank that reports `error`; before MPI has started, the launcher's word for it."""
    if error.rank is not None:
        return error.rank
    return promised_rank(os.environ)


if __name__ == "__main__":
    sys.exit(main())
