"""Functions that code may call in any process: in a worker, in a pool's owner, or elsewhere."""
