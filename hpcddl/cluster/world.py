"""The learners of one job: their communicators, their device, and how they fail together."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import torch
from mpi4py import MPI

from hpcddl.cluster.cores import cores_of_rank
from hpcddl.cluster.launcher import promised_size
from hpcddl.cluster.ranks import join
from hpcddl.cluster.same import difference, of_this_process
from hpcddl.common.errors import UserError

Result = TypeVar("Result")


class AgreedError(UserError):
    """A user's error that every rank knows of: rank 0 prints it, all exit 2."""

    def __init__(self, message: str, rank: int) -> None:
        super().__init__(message)
        self.rank = rank


@dataclass(frozen=True)
class World:
    """All learners (`comm`), those of this node (`node`), and this one's device."""

    comm: MPI.Intracomm
    node: MPI.Intracomm
    device: torch.device

    @property
    def rank(self) -> int:
        """This learner, 0 .. size - 1."""
        return self.comm.rank

    @property
    def size(self) -> int:
        """The number of learners n."""
        return self.comm.size

    @classmethod
    def create(
        cls, asked: Mapping[str, object] | None = None, node_size: int | None = None
    ) -> World:
        """The job's world. Collective.

        Args:
            asked: the options of the command, which must be the same on all ranks, as must the
                software and the variables that change numbers.
            node_size: fakes nodes of that many consecutive ranks (tests on one machine).

        Raises:
            AgreedError: the launcher promised more ranks than MPI joined, MPI lacks
                THREAD_MULTIPLE, a node has more ranks than GPUs, or the ranks are not alike.
        """
        comm, node = join(node_size)
        fault = _start_fault(comm.size, node.size, os.environ)
        faults = [text for text in comm.allgather(fault) if text]
        if faults:
            raise AgreedError(faults[0], comm.rank)
        gpus = torch.cuda.device_count()
        if gpus:
            device = torch.device("cuda", node.rank)
            torch.cuda.set_device(device)
        else:
            device = torch.device("cpu")
        cores = tuple(os.sched_getaffinity(0))
        own = cores_of_rank(cores, node.allgather(cores))
        if "OMP_NUM_THREADS" not in os.environ:
            # Else every rank starts one thread per core, and they fight for the cores.
            torch.set_num_threads(max(1, int(own)))
        world = cls(comm, node, device)
        options = {f"--{key.replace('_', '-')}": value for key, value in (asked or {}).items()}
        world.check_same({**of_this_process(os.environ), "device": device.type, **options})
        return world

    def check_same(self, facts: Mapping[str, object]) -> None:
        """Refuses to go on where a rank has other `facts` than rank 0. Collective.

        Raises:
            AgreedError: names the rank, its host, the key, and both values.
        """
        found = difference(self.comm, facts)
        if found:
            raise AgreedError(found, self.rank)

    def together(self, work: Callable[[], Result]) -> Result:
        """Runs `work` on every rank; a UserError on any rank is raised on all of them.

        Raises:
            AgreedError: with the first rank's message.
        """
        result: Result | None = None
        fault = None
        try:
            result = work()
        except UserError as error:
            fault = str(error)
        faults = [text for text in self.comm.allgather(fault) if text]
        if faults:
            raise AgreedError(faults[0], self.rank)
        return result  # type: ignore[return-value]

    def on_rank_zero(self, work: Callable[[], Result]) -> Result:
        """Runs `work` on rank 0 alone; what it returns, or its UserError, is every rank's.

        Raises:
            AgreedError: with its message.
        """
        result: Result = self.comm.bcast(self.together(lambda: work() if self.rank == 0 else None))
        return result

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Inside, an exception on one rank ends the whole job instead of leaving it hanging.

        So does one in a thread: the main thread may wait for ever for what it would have done.
        """
        before, threading.excepthook = threading.excepthook, self.end_with_thread
        try:
            yield
        except AgreedError:
            raise
        except BaseException as error:
            if self.size == 1:
                raise
            if isinstance(error, UserError):
                text, status = f"hpcddl: error: rank {self.rank}: {error}\n", 2
            else:
                text, status = f"hpcddl: rank {self.rank} failed\n{traceback.format_exc()}", 1
            self._end(text, status)
        finally:
            threading.excepthook = before

    def end_with_thread(self, failed: threading.ExceptHookArgs) -> None:
        """Ends all ranks with status 1 for an exception in a thread: a threading.excepthook.

        The main thread is not asked: it may be inside a library, and never come out of it.
        """
        if failed.exc_type is SystemExit:
            return
        name = failed.thread.name if failed.thread else "?"
        lines = traceback.format_exception(failed.exc_type, failed.exc_value, failed.exc_traceback)
        self._end(f"hpcddl: rank {self.rank} failed in thread {name}\n{''.join(lines)}", 1)

    def _end(self, text: str, status: int) -> None:
        with suppress(OSError):  # nobody may be left to read it
            sys.stderr.write(text)
            sys.stderr.flush()
        if self.size == 1:
            os._exit(status)
        self.comm.Abort(status)


def _start_fault(size: int, node_size: int, environment: Mapping[str, str]) -> str | None:
    """Why this world cannot be what the user asked for, or None."""
    promised = promised_size(environment)
    if promised is not None and promised != size:
        return (
            f"launcher: {promised} ranks were started but MPI joined {size}: the launcher and "
            "the MPI of mpi4py do not fit; use that MPI's mpirun, or srun --mpi=pmix"
        )
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE and size > 1:
        return "MPI: no THREAD_MULTIPLE, which Horovod and the weight exchange need"
    gpus = torch.cuda.device_count()
    if 0 < gpus < node_size:
        return f"launcher: {node_size} ranks on a node with {gpus} GPUs; start one rank per GPU"
    return None
