"""How a stage's attempts are handed out, waited for and heard, and how a driver takes care of its run meanwhile.

`dispatcher` is the loop; `worklist` hands out; `hearing` says what an outcome means, once for all stages; `waits` knows why
nothing is handed out; `tenure` keeps the lease and gives the run back. The story above it (`pipeline`) says only which stage.
"""
