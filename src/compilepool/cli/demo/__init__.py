"""`compilepool demo`: compiles real Triton kernels, with bad jobs among them.

`command` runs the demo and `report` prints its results. `jobs` submits the jobs: the kernels of
`kernels` in the variants of `variants`, compiled by `compilation`, and the bad jobs of `faults`.
"""
