"""Where attempts run. With `explore`, the only importer of Dask.

An executor is given the attempt function and reports outcomes as values. It keeps no count of failures and reads no
ledger: what an outcome means is the pipeline's to say.

| module | what it does |
|---|---|
| `inline`, `dask_cluster` | the executors: in this process and in order; on a Dask cluster |
| `connect`, `local` | open the one that a command asks for; a cluster of this machine's processes |
| `guarded`, `isolated` | one attempt as a value; one alone in a child process |
| `preparing`, `versions` | before the first attempt: what workers import and compile; whether all run the same versions |
| `stalls`, `look` | when nothing moves; a running cluster, looked at for `doctor` |
"""
