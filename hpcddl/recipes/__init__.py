"""Packaged recipes: one YAML file per experiment; `base:` names the recipe it builds on."""

from pathlib import Path
from typing import Any

import yaml

from hpcddl.common.errors import UserError

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The packaged recipes that run; files that start with an underscore are common parts."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.name.startswith("_"))


def find_recipe(name: str) -> Path:
    """The file of a packaged recipe, or `name` itself when it is a YAML file.

    Raises:
        UserError: neither exists.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"recipe {name}: no such file")
        return path
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"recipe {name!r}: must be a YAML file or one of {', '.join(names())}")
    return path


def name_of(text: str) -> str:
    """What the runs of a packaged NAME, or of a file PATH/NAME.yaml, are called: NAME."""
    return Path(text).name.removesuffix(".yaml").removesuffix(".yml")


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe's values over those of its base, section by section.

    Raises:
        UserError: not YAML, or not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"recipe {path}: must be a mapping of keys to values")
    base = values.pop("base", None)
    if base is None:
        return values
    beside = path.parent / f"{base}.yaml"
    return merge(read_recipe(beside if beside.is_file() else find_recipe(base)), values)


def merge(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """`values` over `base`; a section that names another choice replaces it whole."""
    merged = dict(base)
    for key, value in values.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            same_choice = value.get("name", below.get("name")) == below.get("name")
            value = merge(below, value) if same_choice else value
        merged[key] = value
    return merged
