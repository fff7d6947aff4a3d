"""A run, or a new model on its frozen input, looked at from a notebook through a Dask client. Read-only."""
