"""Where attempts run: `inline`, in this process and in order; `dask_cluster`, on a Dask cluster. Only importer of distributed.

An executor is given the attempt function and reports outcomes as values. It keeps no count of failures and reads no
ledger: what an outcome means is the pipeline's to say.
"""
