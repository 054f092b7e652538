"""The command line: `compilepool demo`."""
