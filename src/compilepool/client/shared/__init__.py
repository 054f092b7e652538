"""Finds the pool that processes of this node share, or starts it."""
