"""Which version this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """The version that is installed, or "not installed" for a bare checkout."""
    try:
        return version("dnas-reid")
    except PackageNotFoundError:
        return "not installed"
