"""A pytest plugin for PyTorch's tests: Inductor compiles in our pool."""

from __future__ import annotations

from compilepool.integrations.torch import install, uninstall


def pytest_configure() -> None:
    """Install the pool before the tests import Inductor."""
    install()


def pytest_unconfigure() -> None:
    """End the pool."""
    uninstall()
