"""A rank's process as its launcher sees it: hands the work to the warm server, ends as it ended.

Started by its path with -S -E, to be up in a hundredth of a second: standard library only.
    client.py SOCKET (-m MODULE | -c CODE) [WORDS]
"""

import json
import os
import signal
import socket
import sys


def main() -> None:
    """Passes on the signals that it gets; ends with the status or by the signal of its work."""
    path, *words = sys.argv[1:]
    job = {
        "words": words,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "cores": sorted(os.sched_getaffinity(0)),
    }
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    socket.send_fds(server, [b"f"], [0, 1, 2])
    server.sendall(json.dumps(job).encode() + b"\n")
    answers = server.makefile("r")
    pid = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: os.kill(pid, number))
    # What it ended with; nothing where the server is gone.
    status = int(answers.readline() or 1)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


main()
