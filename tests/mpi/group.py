"""The ranks that run tests/mpi, as the pytest outside of them sees them.

One job of n ranks, each a pytest of its own (worker.py), runs the cases of n ranks one by one: it
is told a case through sockets and sends every rank's reports back. A rank that fails while others
wait for it, one that ends, or a case that takes too long costs that case alone: the job is ended,
and the next case gets a new one.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, environment, mpirun_command
from tests.warm.start import warm_python

_START_SECONDS = 60.0
# Once a rank has failed or ended: for those that fail too, or did not need it.
GRACE_SECONDS = 3.0
_STACK_SECONDS = 5.0  # for a rank to write where it is; on a busy machine
_LINES, _WIDTH = 80, 200  # of the job's output


class Rank:
    """The connection to one rank: lines of JSON both ways; and the file of its stacks."""

    def __init__(self, connection: socket.socket, folder: Path) -> None:
        self.connection = connection
        self._buffer = b""
        connection.settimeout(_START_SECONDS)
        hello = next(self.messages(), None) or {"rank": -1, "pid": 0}
        self.number, self._pid = hello["rank"], hello["pid"]
        self.stacks = folder / f"stacks.{self.number}"

    def tell(self, message: Any) -> None:
        """Sends it, unless the rank is gone, which is seen when its answer is read."""
        with suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def messages(self) -> Iterator[Any]:
        """What has come, after waiting for something; None for the end of the rank."""
        try:
            received = self.connection.recv(1 << 20)
        except OSError:
            received = b""
        *lines, self._buffer = (self._buffer + received).split(b"\n")
        yield from map(json.loads, lines)
        if not received:
            yield None

    def show_stack(self) -> None:
        """The rank writes where each of its threads is."""
        end = time.monotonic() + _STACK_SECONDS
        with suppress(OSError):
            os.kill(self._pid, signal.SIGUSR1)
            while not self.stacks.stat().st_size and time.monotonic() < end:
                time.sleep(0.05)


@dataclass
class Outcome:
    """Of one case: each rank's reports, in pytest's form to send, and what else went wrong."""

    reports: list[list[dict[str, Any]]]
    lost: list[str] = field(default_factory=list)
    """A line on each rank that did not get to the end."""
    output: str = ""
    """What the job had printed then."""
    seconds: float = 0.0
    """That the case took."""

    @property
    def good(self) -> bool:
        """Nothing failed: the job may run another case."""
        return not self.lost and all(r["outcome"] != "failed" for one in self.reports for r in one)


class Group:
    """A job of ranks; started by the first case.

    Args:
        ranks: how many.
    """

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._folder: Path | None = None
        self._members: list[Rank] = []

    def run(self, case: str, following: str | None, seconds: float) -> Outcome:
        """Runs one case on all ranks.

        Args:
            case: its node id.
            following: the next one's, or None: what the cases share is then taken down.
            seconds: its limit.
        """
        if self._folder is None:
            fault = self._start()
            if fault:
                return Outcome([[] for _ in range(self._ranks)], [fault], self.close(now=True))
        began = time.monotonic()
        for rank in self._members:
            rank.tell({"case": case, "following": following})
        outcome = self._collect(seconds)
        outcome.seconds = time.monotonic() - began
        if not outcome.good:
            outcome.output = self.close(now=True)
        return outcome

    def _start(self) -> str:
        """Starts the job; why it did not, or nothing."""
        try:
            python = warm_python()
        except AssertionError as error:
            return str(error)
        self._members.clear()
        self._folder = Path(tempfile.mkdtemp(prefix="hpcddl-ranks-"))
        path = self._folder / "socket"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen(self._ranks)
            with (self._folder / "output").open("w") as output:
                self._job = subprocess.Popen(
                    [*mpirun_command(self._ranks), *python, "-m", "tests.mpi.worker", path],
                    env=environment(),
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            end = time.monotonic() + _START_SECONDS
            listening.settimeout(0.2)
            while len(self._members) < self._ranks:
                try:
                    self._members.append(Rank(listening.accept()[0], self._folder))
                except TimeoutError:
                    if self._job.poll() is not None or time.monotonic() > end:
                        return f"{len(self._members)} of {self._ranks} ranks started"
        self._members.sort(key=lambda rank: rank.number)
        return ""

    def _collect(self, seconds: float) -> Outcome:
        """The ranks' answers, up to the limit, or for a while after the first failure."""
        outcome = Outcome([[] for _ in range(self._ranks)])
        waited_for = set(range(self._ranks))
        limit, reason = time.monotonic() + seconds, f"within {seconds:g} s"
        with selectors.DefaultSelector() as selector:
            for number, rank in enumerate(self._members):
                selector.register(rank.connection, selectors.EVENT_READ, number)
            while waited_for and time.monotonic() < limit:
                good = outcome.good
                for key, _ in selector.select(limit - time.monotonic()):
                    for message in self._members[key.data].messages():
                        if message == "done":
                            waited_for.discard(key.data)
                        elif message is None:
                            selector.unregister(key.fileobj)
                            waited_for.discard(key.data)
                            outcome.lost.append(f"rank {key.data} ended")
                        else:
                            outcome.reports[key.data].append(message)
                if good and not outcome.good:
                    limit = min(limit, time.monotonic() + GRACE_SECONDS)
                    reason = f"within {GRACE_SECONDS:g} s of another's failure"
        for number in sorted(waited_for):
            outcome.lost.append(f"rank {number} did not end {reason}")
            self._members[number].show_stack()
        return outcome

    def close(self, now: bool = False) -> str:
        """Ends the job, and returns the end of what it has printed.

        Args:
            now: ranks may hang; else they are told to end.
        """
        if self._folder is None:
            return ""
        for rank in self._members:
            rank.tell(None)
        if now:
            self._job.terminate()
        try:
            self._job.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._job.kill()
            self._job.wait()
        files = [self._folder / "output", *(rank.stacks for rank in self._members)]
        for rank in self._members:
            rank.connection.close()
        texts = [file.read_text(errors="replace") for file in files if file.exists()]
        said = [line for text in texts for line in text.splitlines()]
        shutil.rmtree(self._folder)
        self._folder = None
        return "\n".join(line[:_WIDTH] for line in said[-_LINES:])
