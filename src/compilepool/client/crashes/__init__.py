"""Crash folders: written when a job crashes, read when it is listed or replayed."""
