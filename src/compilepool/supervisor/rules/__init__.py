"""What to do about each event: pure, with no I/O and no clock."""
