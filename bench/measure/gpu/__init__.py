"""What can be learned about the suite on a GPU in a few minutes: `make gpu`, with the kit of `make gpu-kit`.

Parts in order of priority, each in a process of its own and with a share of the time, so that one which fails, hangs or
breaks the GPU costs the others nothing.  Each writes its tables row by row, so that what was measured is kept.
"""
