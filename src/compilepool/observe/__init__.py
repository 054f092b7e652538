"""Observes the jobs of a pool in the user's process: counts, log, trace and progress display."""
