"""What runs in the fork server and the workers of a pool for PyTorch."""
