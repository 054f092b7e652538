"""The command line: `compilepool demo`, `doctor`, `crashes`, `replay`, `run`, `ps` and `stop`."""
