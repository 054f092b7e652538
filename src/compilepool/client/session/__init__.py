"""One pool's life in the client: its supervisors, unfinished calls, and who waits for what."""
