"""The jobs of Numba, and what prepares a worker for them. Runs in fork servers and workers."""
