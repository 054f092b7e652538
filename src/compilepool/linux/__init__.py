"""Interfaces of the Linux kernel: pidfds, /proc, cgroups, signals, spawning. It knows no pools."""
