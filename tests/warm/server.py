"""Starts processes that have torch, Horovod and hpcddl imported already, by forking itself.

Importing them takes two seconds of a core, in every rank of every launch; a fork takes a
hundredth. MPI is loaded here but not started: each child starts its own, as the launcher's process
that it stands for (client.py), whose environment, folder, cores and open files it has.

    python -m tests.warm.server SOCKET     says "ready" when it takes work
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import random
import runpy
import selectors
import signal
import socket
import sys
import threading
from contextlib import suppress
from types import ModuleType
from typing import Any, NoReturn

import mpi4py
import numpy
import torch

mpi4py.rc.initialize = False  # not here, but in each child
mpi4py.rc.finalize = True

_SET_PARENT_DEATH_SIGNAL = 1  # prctl
_LIBRARIES = (
    *("torch._dynamo", "torch.distributed", "torch.utils.tensorboard", "horovod.torch"),
    *("mpi4py.MPI", "matplotlib.pyplot", "scipy.optimize", "sklearn.datasets", "pytest"),
)


def serve(path: str) -> dict[str, Any]:
    """Forks a child for each client, for ever. Returns in children only, with the child's job."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(64)
    parent = os.getpid()
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    children: dict[socket.socket, tuple[int, int]] = {}  # client -> number, descriptor
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                client = listening.accept()[0]
                job = _receive(client)
                pid = os.fork()
                if pid == 0:
                    _end_with(parent)
                    selector.close()
                    for other, (_, descriptor) in children.items():
                        other.close()
                        os.close(descriptor)
                    listening.close()
                    client.close()
                    return job
                for number in job["files"]:
                    os.close(number)
                _tell(client, pid)
                children[client] = pid, os.pidfd_open(pid)
                selector.register(client, selectors.EVENT_READ)
                selector.register(children[client][1], selectors.EVENT_READ, client)
            elif key.data is None and key.fileobj in children:
                # The client is gone: killed by its launcher, say. Its child is not yet waited for.
                selector.unregister(key.fileobj)
                os.kill(children[key.fileobj][0], signal.SIGKILL)
            elif key.data is not None:  # a child has ended
                pid, descriptor = children.pop(key.data)
                _tell(key.data, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                selector.unregister(descriptor)
                os.close(descriptor)
                if key.data in selector.get_map():
                    selector.unregister(key.data)
                key.data.close()


def _tell(client: socket.socket, number: int) -> None:
    with suppress(OSError):  # it was killed
        client.sendall(b"%d\n" % number)


def _receive(client: socket.socket) -> dict[str, Any]:
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    text = b""
    while not text.endswith(b"\n"):
        text += client.recv(1 << 20)
    job: dict[str, Any] = json.loads(text)
    job["files"] = files
    return job


def _end_with(parent: int) -> None:
    """This child is killed when the server is gone."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def become(job: dict[str, Any]) -> None:
    """Takes over what the launcher gave to the client, and starts MPI as `hpcddl` does."""
    for own, given in enumerate(job["files"]):
        os.dup2(given, own)
        os.close(given)
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    os.sched_setaffinity(0, job["cores"])
    sys.path[0] = ""
    # As a new process has it: a random start of its own.
    torch.seed()
    numpy.random.seed()  # noqa: NPY002
    random.seed()
    from mpi4py import MPI

    from hpcddl.cluster import mpi_start

    mpi_start.prepare(os.environ)
    MPI.Init_thread(MPI.THREAD_MULTIPLE)


def work(words: list[str]) -> None:
    """As `python WORDS`, with -m MODULE or -c CODE."""
    kind, text, *rest = words
    if kind == "-m":
        sys.argv = [text, *rest]
        runpy.run_module(text, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *rest]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(text, "<string>", "exec"), main.__dict__)


def end(status: int) -> NoReturn:
    """Ends as Python does, but for taking all modules down, which would copy their memory first."""
    from mpi4py import MPI

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if not MPI.Is_finalized():
        MPI.Finalize()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def status_of(words: list[str]) -> int:
    """Does the work; the status that Python would end with."""
    try:
        work(words)
    except SystemExit as ended:
        if isinstance(ended.code, int):
            return ended.code & 0xFF
        if ended.code is not None:
            print(ended.code, file=sys.stderr)
        return int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


def _import_all() -> None:
    from hpcddl.commands.table import COMMANDS

    for name in (*_LIBRARIES, *(module for module, _ in COMMANDS.values())):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else a child's collections would copy all pages


if __name__ == "__main__":
    _import_all()
    mine = serve(sys.argv[1])
    become(mine)
    end(status_of(mine["words"]))
