"""The number that a paper prints for a run, where a table names its recipe and settings agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcddl.papers import Cell, Numbers, papers
from hpcddl.run.records import Run

# How the tables call what a recipe's name is made of: data set, network, algorithm.
_WORDS = {
    "swb300": "SWB-300",
    "swb2000": "SWB-2000",
    "cifar10": "CIFAR-10",
    "densenet121": "DenseNet-121",
    "efficientnet_b0": "EfficientNet-B0",
    "googlenet": "GoogLeNet",
    "mobilenet": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "resnet18": "ResNet-18",
    "resnext29": "ResNeXt-29",
    "senet18": "SENet-18",
    "shufflenet_v2": "ShuffleNet",
    "vgg19": "VGG-19",
    "ssgd": "SSGD",
    "dpsgd": "DPSGD",
}
# What a table gives one by one, and what changes no result but by chance or by rounding.
_FREE = (
    *("description", "seed", "global_batch", "links", "checkpoint", "diagnostics"),
    *("log_every", "prefetch", "channels_last", "compile"),
)


@dataclass(frozen=True)
class Printed:
    """A number with its table, what it is of, and the settings that the paper states."""

    value: Cell
    table: str  # such as a.table4
    what: str  # quantity and unit
    settings: str


def printed(runs: Sequence[Run]) -> list[list[Printed]]:
    """For each run, of every table that names a recipe of its config, but for batch and seed."""
    tables = {
        f"{letter}.{key}": entry
        for letter, paper in papers().items()
        for key, entry in paper.entries.items()
    }
    configs: dict[str, dict[str, Any]] = {}

    def agrees(recipe: str, run: Run) -> bool:
        path = run.config.get("data", {}).get("path")
        if not path or recipe.partition(".")[0] != Path(path).name:
            return False
        if recipe not in configs:
            from hpcddl.run.config import load_config  # it loads every network there is

            configs[recipe] = _comparable(load_config(recipe).plain())
        return configs[recipe] == _comparable(run.config)

    return [
        [
            Printed(value, name, numbers.what, entry.settings)
            for name, entry in tables.items()
            for recipe in entry.recipes
            if agrees(recipe, run)
            for numbers in entry.numbers
            for value in _cells(numbers, recipe, run)
        ]
        for run in runs
    ]


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key not in _FREE}
    kept["data"] = {**config["data"], "path": Path(config["data"]["path"]).name}
    return kept


def _cells(numbers: Numbers, recipe: str, run: Run) -> Iterator[Cell]:
    """Yields cells of rows with the run's settings, in the column of its network, data or batch."""
    data, *network, algorithm = (_WORDS.get(part, part) for part in recipe.split("."))
    batch, schedule = run.config["global_batch"], run.config["schedule"]
    own: dict[str, Any] = {
        "data": data,
        "algorithm": algorithm,
        "batch": batch,
        "base rate": schedule.get("rate"),
    }
    if schedule.get("rate") and schedule.get("base_batch"):
        own["rate"] = round(schedule["rate"] * batch / schedule["base_batch"], 9)
    columns = {f"{data} at {batch}", str(batch), algorithm, *network}
    known = len(numbers.settings)
    for row in numbers.rows:
        if all(own.get(s) == value for s, value in zip(numbers.settings, row, strict=False)):
            for column, value in zip(numbers.columns, row[known:], strict=True):
                if column in columns and value is not None:
                    yield value
