"""The version. It stands here because modules of the package need it, and not its public names."""

__version__ = "0.1.0"
