"""What setup.cfg cannot say: the recipes of configs/ are installed as data of the package (`dnas.recipes`)."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["dnas", "dnas.*", "search_spaces*", "retrain*"]), "dnas.recipes"],
    package_dir={"dnas.recipes": "configs"},
)
