"""Compiles configurations of Helion. Runs in fork servers and workers."""
