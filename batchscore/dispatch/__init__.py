"""How a stage's attempts are handed out, waited for and heard, and how a driver takes care of its run meanwhile.

The story above it (`pipeline`) says only which stage.

| module | what it does |
|---|---|
| `dispatcher` | the loop over a stage's attempts |
| `worklist`, `oldest_first` | what is still to be handed out, and in which order where a run may be late |
| `hearing` | what an outcome means, once for all stages |
| `waits`, `requests`, `limits` | why nothing is handed out; what people ask; what a driver is told beside its plan |
| `tenure` | the lease is kept, and the run is given back |
| `forecast`, `stories` | when the run will be over; what a cluster said when nothing moved |
"""
