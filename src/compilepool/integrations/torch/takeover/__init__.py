"""Puts a `CompilePool` in the place of the pool that Inductor would start."""
