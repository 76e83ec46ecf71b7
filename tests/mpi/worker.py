"""One rank of a group (group.py): a pytest that runs the cases it is told, one by one.

mpirun -np N python -m tests.mpi.worker SOCKET
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import sys
from typing import Any

import pytest

PLUGIN = "one rank"  # its name, by which conftest.py knows where it is


class Told:
    """The plugin that replaces pytest's loop over all tests, and sends away its reports."""

    def __init__(self, path: str) -> None:
        self.__name__ = PLUGIN
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._config: Any = None
        self._faults: list[str] = []

    def _send(self, message: Any) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keeps why a file could not be imported."""
        if report.failed:
            self._faults.append(report.longreprtext)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Until told None, or the session outside is gone."""
        self._config = session.config
        items = {item.nodeid: item for item in session.items}
        self._send({"rank": int(os.environ["OMPI_COMM_WORLD_RANK"]), "pid": os.getpid()})
        for line in self._socket.makefile("r"):
            told = json.loads(line)
            if told is None:
                break
            if told["case"] not in items:
                print(*self._faults, sep="\n", file=OUTPUT, flush=True)
                raise SystemExit(f"there is no {told['case']} on this rank")
            item, following = items[told["case"]], items.get(told["following"])
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            self._send("done")
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of a case: setup, call or teardown."""
        hook = self._config.hook
        self._send(hook.pytest_report_to_serializable(config=self._config, report=report))


if __name__ == "__main__":
    # A file of this rank alone: mpirun may end before it has passed on what a dying rank says.
    rank = os.environ["OMPI_COMM_WORLD_RANK"]
    OUTPUT = open(os.path.join(os.path.dirname(sys.argv[1]), f"stacks.{rank}"), "w")  # noqa: SIM115
    faulthandler.enable(file=OUTPUT)
    # By which the session outside asks a rank that hangs where it is.
    faulthandler.register(signal.SIGUSR1, file=OUTPUT, all_threads=True)
    words = [
        "-o",
        "addopts=--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:faulthandler",  # it would take this rank's file from it
        "-p",
        "no:terminal",
        "tests/mpi",
    ]
    sys.exit(pytest.main(words, plugins=[Told(sys.argv[1])]))
