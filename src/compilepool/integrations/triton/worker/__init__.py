"""The code that runs in the fork server and in the workers of a pool for Triton."""
