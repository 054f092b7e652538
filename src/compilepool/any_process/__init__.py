"""What code may call in whatever process it runs: who it is, what it does, how it ends."""
