"""The command line: `compilepool run`, `top`, `ps`, `stop`, `crashes` and others."""
