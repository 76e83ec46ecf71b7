"""Lists of numbers as Linux and Slurm write them."""

from collections.abc import Iterable


def ranges(numbers: Iterable[int]) -> str:
    """Writes ascending numbers, consecutive ones as a range: 0-3,8."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)
