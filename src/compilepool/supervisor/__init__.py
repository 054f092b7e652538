"""The supervisor process: owns the queue and the workers. Standard library and `wire` only."""
