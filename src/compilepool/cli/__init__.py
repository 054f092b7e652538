"""The command line: `compilepool demo`, `doctor`, `crashes`, `replay` and `run`."""
