"""environment.yml and pyproject.toml ask for the same packages in the same versions."""

import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())

# What conda-forge calls differently than PyPI. matplotlib-base is matplotlib without Qt, its playwright is for Node.
PYPI_NAME = {"pytorch": "torch", "matplotlib-base": "matplotlib", "playwright-python": "playwright"}


def versions(requirements: list[str]) -> dict[str, SpecifierSet]:
    """The version range of each package, by its PyPI name."""
    parsed = map(Requirement, requirements)
    return {canonicalize_name(PYPI_NAME.get(entry.name, entry.name)): entry.specifier for entry in parsed}


(BY_PIP,) = [entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict)]
CONDA = versions([entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)])
PACKAGES = CONDA | versions([entry for entry in BY_PIP if not entry.startswith("-")])


def test_same_packages_and_versions():
    extras = [entry for extra in PROJECT["optional-dependencies"].values() for entry in extra]
    expected = versions(PROJECT["dependencies"] + extras)
    del expected[PROJECT["name"]]  # an extra that includes another
    tools = {"python", "pip"}
    assert {name: PACKAGES[name] for name in PACKAGES.keys() - tools} == expected


def test_same_python():
    assert CONDA["python"] == SpecifierSet(PROJECT["requires-python"])


def test_it_comes_from_conda_forge_and_installs_the_package_itself():
    assert ENVIRONMENT["channels"] == ["conda-forge"]
    assert ENVIRONMENT["name"] == PROJECT["name"]
    assert "--editable ." in BY_PIP
    assert "pip" in CONDA
