"""Crash folders: the client writes one for each crashed job, and the command line reads them."""
