"""A failure put into words, and into the exception that its job's future gets."""
