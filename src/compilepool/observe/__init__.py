"""How a pool is doing, for its user: counted, logged, traced, and shown. In the user's process."""
