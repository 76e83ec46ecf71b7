"""Packaged recipes: one YAML file per experiment; `base:` names the recipe it builds on."""

from pathlib import Path
from typing import Any

from hpcddl.common import references
from hpcddl.common.errors import UserError
from hpcddl.common.yaml_file import read_yaml_file, shown

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The packaged recipes that run; files that start with an underscore are common parts."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.name.startswith("_"))


def find_recipe(name: str) -> Path:
    """Finds the file of a packaged recipe; it is `name` itself where that is a YAML file's.

    Raises:
        UserError: neither exists.
    """
    own = name.endswith((".yaml", ".yml"))
    path = Path(name) if own else FOLDER / f"{name}.yaml"
    if is_file(path):
        return path
    if own:
        raise UserError(f"recipe {shown(name)}: no such file")
    raise UserError(
        f"recipe {shown(repr(name))}: must be a YAML file or one of {', '.join(names())}"
    )


def is_file(path: Path) -> bool:
    """Whether there is such a file; there is none with a name that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def name_of(text: str) -> str:
    """What the runs of a packaged NAME, or of a file PATH/NAME.yaml, are called: NAME."""
    return Path(text).name.removesuffix(".yaml").removesuffix(".yml")


def read_recipe(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Reads the recipe's values over those of its base, section by section.

    References to files of a user's own become absolute: they are relative to the recipe.

    The values are texts, None, and lists and mappings of them (hpcddl/common/yaml_file.py).

    Args:
        above: the recipes that build on this one.

    Raises:
        UserError: not YAML, not a mapping, or a recipe that builds on itself.
    """
    values = read_yaml_file(path, "recipe")
    if not isinstance(values, dict):
        raise UserError(f"recipe {shown(path)}: must be a mapping of keys to values")
    values = references.absolute(values, path.parent)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise UserError(f"recipe {shown(path)}: base={shown(base)}: must be a recipe's name")
    beside = path.parent / f"{base}.yaml"
    below = beside if is_file(beside) else find_recipe(base)
    seen = (*above, path)
    if any(below.samefile(one) for one in seen):
        raise UserError(
            f"recipe {shown(path)}: base={shown(base)}: must be a recipe that does not build on it"
        )
    return merge(read_recipe(below, seen), values)


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
