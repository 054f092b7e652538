"""The user's process: the pool, its futures, and the thread that reads for them."""
