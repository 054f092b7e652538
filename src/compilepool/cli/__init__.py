"""The command line: `compilepool demo`, `crashes`, `replay` and `doctor`."""
