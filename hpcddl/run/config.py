"""A recipe and its overrides become one frozen, fully validated Config."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from hpcddl.cluster.emulate import LinksSection
from hpcddl.common import references
from hpcddl.common.errors import UserError
from hpcddl.common.files import write_whole
from hpcddl.common.options import Choice, From, Strict
from hpcddl.common.yaml_file import shown
from hpcddl.data import DATASETS
from hpcddl.data.augment import AUGMENTATIONS
from hpcddl.data.identity import identified
from hpcddl.models import MODELS
from hpcddl.optimizers import OPTIMIZERS
from hpcddl.optimizers.schedules import SCHEDULES
from hpcddl.recipes import find_recipe, read_recipe
from hpcddl.run import own_code
from hpcddl.run.faults import first_fault
from hpcddl.run.old_names import overrides_with_new_names, with_new_names
from hpcddl.run.overrides import apply_override
from hpcddl.strategies import STRATEGIES
from hpcddl.training.batch_norm import BATCH_NORM

Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]


class WeightNoise(Strict):
    """SSGD* (paper A sec. 2.1): Gaussian noise in the weights; `std` 0 is none."""

    std: Annotated[float, Field(ge=0)] = 0.0
    reading: Literal["per_learner", "shared"] = "per_learner"


class GradientNoise(Strict):
    """N(0, eta / (1 + t)^gamma I) on the gradient of update t (paper B app. C.5); eta 0 is none.

    The default gamma is that of Neelakantan et al. 2015.
    """

    eta: Annotated[float, Field(ge=0)] = 0.0
    gamma: Annotated[float, Field(ge=0)] = 0.55


class DiagnosticsOptions(Strict):
    """The noise of each `every`-th update (paper A sec. 2); 0: of none."""

    every: CountOrNone = 0
    of: Literal["train", "heldout"] = "train"  # the overall loss: that of this split
    samples: CountOrNone = 0  # of the split, drawn once by the seed; 0: all
    second_order: bool = False  # also Delta2 from Hessians: a product per learner


class Checkpointing(Strict):
    """When every learner's state is written, and which states are kept."""

    every_epochs: Count = 1
    every_steps: CountOrNone = 0  # also within an epoch; 0: only at its end
    every_minutes: Annotated[float, Field(ge=0)] = 30.0  # also since the last one; 0: never
    keep_last: Count = 2
    keep_epochs: tuple[int, ...] = ()


class Config(Strict):
    """One experiment. The global batch is n learners times their local batch, whatever n."""

    description: str = ""
    seed: CountOrNone = 0
    epochs: Count
    start_epoch: CountOrNone = 0  # where epoch count, schedule and data order begin (init_from)
    global_batch: Count
    accumulate: Count = 1  # micro-batches that each learner's local batch is processed in
    model: Annotated[Choice, From(MODELS)]
    data: Annotated[Choice, From(DATASETS)]
    augment: Annotated[Choice, From(AUGMENTATIONS)] = Choice("none", {})  # of training batches
    optimizer: Annotated[Choice, From(OPTIMIZERS)]
    schedule: Annotated[Choice, From(SCHEDULES)]
    strategy: Annotated[Choice, From(STRATEGIES)]
    weight_noise: WeightNoise = WeightNoise()
    gradient_noise: GradientNoise = GradientNoise()
    clip_norm: Annotated[float, Field(gt=0)] | None = None  # of each gradient before it is stepped
    links: LinksSection = LinksSection()
    checkpoint: Checkpointing = Checkpointing()
    init_from: str | None = None  # RUN@EPOCH: weights and statistics of another run's consensus
    batch_norm: Annotated[Choice, From(BATCH_NORM)] = Choice("averaged", {})  # of the consensus
    dtype: Literal["float32", "float64"] = "float32"
    autocast: Literal["bfloat16", "float16"] | None = None  # of products and convolutions
    channels_last: bool = False  # of images: a pixel's channels lie together in memory
    compile: bool = False  # the network, by torch.compile
    diagnostics: DiagnosticsOptions = DiagnosticsOptions()
    log_every: Count = 10  # steps from one line in metrics.jsonl to the next
    # Batches loaded ahead by the prefetch thread, each of which has its memory; 0: none.
    prefetch: Annotated[int, Field(ge=0, le=1024)] = 3

    @model_validator(mode="after")
    def _refuse_autocast_of_float64(self) -> "Config":
        if self.autocast and self.dtype != "float32":
            raise ValueError(f"autocast={self.autocast}: needs dtype=float32, not {self.dtype}")
        return self

    def identified(self) -> "Config":
        """The same with the fingerprint of the data set that lies at its path.

        Raises:
            UserError: another data set than the recipe names, or none.
        """
        return self.model_copy(update={"data": identified(self.data, "data.fingerprint=any")})

    def same(self) -> dict[str, Any]:
        """What must be the same on all ranks, by dotted keys; a user's own code by its content."""
        return dotted(own_code.canonical(self.plain()))

    def plain(self) -> dict[str, Any]:
        """As a recipe with every default written out."""
        return self.model_dump(mode="json")


def dotted(values: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested mappings into one, with keys as an override names them: `model.layers`."""
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        key: value
        for name, below in values.items()
        for key, value in dotted(below, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def load_config(recipe: str, overrides: Sequence[str] = ()) -> Config:
    """Reads a packaged recipe or a YAML file and applies `dotted.key=value` overrides.

    Raises:
        UserError: no such recipe, an unknown key (with the nearest valid one), a wrong type, a
            section under its own and its old name.
    """
    values = with_new_names(read_recipe(find_recipe(recipe)), recipe)
    for override in overrides_with_new_names(overrides):
        values = references.absolute(apply_override(values, override), Path())
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{shown(recipe)}: {first_fault(error)}") from None


def save_config(config: Config, path: Path) -> None:
    """Writes the config as a recipe that runs again as it is, and the user's own code beside it."""
    kept = own_code.keep(config.plain(), path.parent)
    write_whole(path, yaml.safe_dump(kept, sort_keys=False).encode())
