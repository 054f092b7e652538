"""Puts a failure into words, and into the exception that the job's future gets."""
