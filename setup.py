"""Lists the packages: everything under `openinfer/` and the four top-level folders that install below it."""

from pathlib import Path

from setuptools import setup

FOLDERS = {"openinfer": "openinfer", **{f"openinfer.{name}": name for name in ("workloads", "profiles", "tuner", "reports")}}
packages = [
    ".".join([package, *init.parent.relative_to(folder).parts])
    for package, folder in FOLDERS.items()
    for init in sorted(Path(folder).rglob("__init__.py"))
]
setup(packages=packages, package_dir=FOLDERS)
