"""The fork server process: it preloads modules, and workers are forked from it."""
