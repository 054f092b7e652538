"""Inspects workers, watches their limits, ends them, and says why they died."""
