"""The kernel's interfaces: pidfds, /proc, cgroups, signals, spawning. Knows nothing of pools."""
