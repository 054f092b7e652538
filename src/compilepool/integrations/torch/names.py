"""The environment variables that switch the integration on."""

ENABLE = "COMPILEPOOL_TORCH"
"""1: Inductor uses a compilepool."""

PROGRAM_PID = "COMPILEPOOL_TORCH_PID"
"""The process that `compilepool run` has become; all others are its descendants."""

OPTIONS = "COMPILEPOOL_TORCH_OPTIONS"
"""JSON: the arguments of `install`."""
