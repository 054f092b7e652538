"""The inspector process: it inspects one process from outside, once, writes a report, and ends."""
