"""Makes a page of traces: where the time went, and what failed. Runs in the user's process."""
