"""Every package in the tree is in the installed distribution."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"openinfer": "openinfer", **{name: f"openinfer.{name}" for name in ("workloads", "profiles", "tuner", "reports")}}
PACKAGES = [
    ".".join([package, *init.parent.relative_to(ROOT / folder).parts])
    for folder, package in FOLDERS.items()
    for init in sorted((ROOT / folder).rglob("__init__.py"))
]


@pytest.mark.parametrize("package", PACKAGES)
def test_installed(package: str) -> None:
    assert importlib.util.find_spec(package) is not None
