"""The warm server of this session: started when a test first needs it, gone with the session."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def warm_python() -> list[str]:
    """What takes the place of `python` in a command: words -m MODULE or -c CODE follow it."""
    client = str(Path(__file__).with_name("client.py"))
    return [sys.executable, "-S", "-E", client, _server()]


@cache
def _server() -> str:
    """The socket of the server."""
    folder = tempfile.mkdtemp(prefix="hpcddl-warm-")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.warm.server", f"{folder}/socket"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )

    def end() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(folder)

    atexit.register(end)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "the warm server did not start"
    return f"{folder}/socket"
