"""How a pool gets its supervisor: one of its own, or one that it shares."""
