"""The environment variables that switch the integration on."""

ENABLE = "COMPILEPOOL_TORCH"
"""1: Inductor uses a compilepool."""

OPTIONS = "COMPILEPOOL_TORCH_OPTIONS"
"""JSON: the arguments of `install`."""
