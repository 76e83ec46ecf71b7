"""Where the time of a training goes."""

import time


class Stopwatch:
    """Seconds by what they were spent on, as the host sees them (a GPU works on meanwhile)."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """Adds the time since the last lap to `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now
